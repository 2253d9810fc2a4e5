"""Experiments at run time: their store, how gateways hear of them, who changes them, and who watches them."""
