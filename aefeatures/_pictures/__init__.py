"""Pictures and pages of codes, reconstructions and losses."""
