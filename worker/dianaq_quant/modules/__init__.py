"""The modules that a network is made of, before, during and after quantisation.

`structure`: float operators that `torch.nn` lacks. `fake`: fake-quantised. `exact`: integers with gradients,
as the chip computes. `integer`: integers only. Editors replace one family by the next.
"""
