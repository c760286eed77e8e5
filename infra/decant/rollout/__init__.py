"""The rollout: put a staged release live on all machines, or leave the old one on all of them."""
