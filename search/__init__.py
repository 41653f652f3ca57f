"""Where the pictures and the words meet: galleries, search, and the service that answers."""
