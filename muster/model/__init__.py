"""The nouns that all the rest speaks of; nothing here knows of a store, a backend or a job."""
