"""Running a recipe: the loop over stages, what is kept on disk, and what is measured after each."""
