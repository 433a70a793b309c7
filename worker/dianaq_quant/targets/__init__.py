"""What the chip is: limits and ranges, each with its source. From outside: `targets.diana`."""
