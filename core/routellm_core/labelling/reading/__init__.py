"""Reading answers: which number, date, option, yes or no, or phrase a text states."""
