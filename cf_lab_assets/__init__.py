"""What the lab makes: assets, their checks, and the sensors, schedules and jobs around them."""
