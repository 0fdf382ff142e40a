"""What a model, a loss and an optimizer of the user are: by name, or traced and verified."""
