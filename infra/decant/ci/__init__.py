"""What workflows on GitHub and GitLab need besides Pulumi: comments on pull requests, and issues."""
