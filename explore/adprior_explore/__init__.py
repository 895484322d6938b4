"""``adprior explore``: a local web page that shows what a served model makes of a user."""
