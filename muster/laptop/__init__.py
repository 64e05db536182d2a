"""Everything on one machine: embedded Postgres, the Airflow components, and the example that shows them."""
