"""What every route shares: dependencies, errors, request ids, pages, and the objects behind them."""
