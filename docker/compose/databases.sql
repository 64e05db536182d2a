-- Airflow's database, beside Muster's own, which the server makes itself.
CREATE DATABASE airflow;
-- A scheduler that is killed within a transaction would leave its locks to its workers for good.
ALTER DATABASE airflow SET idle_in_transaction_session_timeout = '120s';
