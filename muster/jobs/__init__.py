"""A batch's life: what it is made of, how it is run, watched, judged and tried again."""
