"""What tells whether a backend is right: seeded scenes, and a judge of their assignments in float64."""
