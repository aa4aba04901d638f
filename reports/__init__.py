"""The static report: one module per page, reading nothing but the marts of a release."""
