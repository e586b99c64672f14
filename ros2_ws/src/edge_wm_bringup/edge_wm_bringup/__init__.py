"""Launch files, parameters, layouts, services and policies: all in this package's share folder."""
