"""The contract of the stores, on every adapter, and what each promises beyond it."""
