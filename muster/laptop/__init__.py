"""Everything on one machine: embedded Postgres, Airflow's components, and an example region."""
