"""What engines that ask a server elsewhere have in common."""
