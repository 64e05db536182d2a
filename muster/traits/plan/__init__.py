"""Looking at bundles, predictors and products, and deciding which bands are computed."""
