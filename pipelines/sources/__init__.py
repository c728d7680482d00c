"""Where images come from, and what is known of each before it is decoded."""
