"""What scores generated clips, and how the learnt scorers are trained."""
