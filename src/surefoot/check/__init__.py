"""Should it? `review(plan, survey)` gives the findings; nothing here imports torch."""
