"""Prediction of output lengths: predictors give the scheduler plain distributions and learn from finished requests."""
