"""The subjects of a report on compute: what strategies cost, and how a budget is best spent."""
