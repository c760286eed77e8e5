"""What workflows on GitHub and GitLab need beside Pulumi: comments, issues, and the run that this is."""
