"""Quick start: makes a recipe from the paths of a user's data. May import `training.steps` and packages below it."""
