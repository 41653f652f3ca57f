"""The service that answers a page and programs: who may ask, what is said, what is collected."""
