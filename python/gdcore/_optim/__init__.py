"""How `gdcore.optim` steps: natively, and as torch does where the kernels cannot."""
