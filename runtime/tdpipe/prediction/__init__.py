"""How long outputs will be: predictors hand the scheduler plain distributions."""
