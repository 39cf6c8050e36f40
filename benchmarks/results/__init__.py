"""What was measured, one JSON file per subject, and the page that is written from them."""
