"""What must move and be computed: models, gates, placement, traffic, layouts."""
