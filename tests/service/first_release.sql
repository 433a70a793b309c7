-- What the first release made of an empty database, without any migration. On SQLite, times are DATETIME.
CREATE TABLE api_keys (
  sha256 VARCHAR NOT NULL, owner VARCHAR NOT NULL, configured BOOLEAN NOT NULL, created TIMESTAMP NOT NULL,
  PRIMARY KEY (sha256));
CREATE TABLE models (
  id VARCHAR NOT NULL, owner VARCHAR NOT NULL, name VARCHAR NOT NULL, sha256 VARCHAR NOT NULL, size INTEGER NOT NULL,
  created TIMESTAMP NOT NULL, info JSON NOT NULL, PRIMARY KEY (id));
CREATE INDEX ix_models_owner ON models (owner);
CREATE TABLE datasets (
  id VARCHAR NOT NULL, owner VARCHAR NOT NULL, name VARCHAR NOT NULL, sha256 VARCHAR NOT NULL, size INTEGER NOT NULL,
  created TIMESTAMP NOT NULL, info JSON NOT NULL, PRIMARY KEY (id));
CREATE INDEX ix_datasets_owner ON datasets (owner);
CREATE TABLE jobs (
  id VARCHAR NOT NULL, owner VARCHAR NOT NULL, model_id VARCHAR NOT NULL, dataset_id VARCHAR NOT NULL,
  spec JSON NOT NULL, state VARCHAR NOT NULL, stage VARCHAR, metrics JSON NOT NULL, error JSON,
  created TIMESTAMP NOT NULL, started TIMESTAMP, finished TIMESTAMP,
  attempt INTEGER NOT NULL, losses INTEGER NOT NULL, lease_owner VARCHAR, lease_expires TIMESTAMP,
  cancel_requested TIMESTAMP, sent TIMESTAMP, last_seq INTEGER NOT NULL, PRIMARY KEY (id));
CREATE INDEX ix_jobs_dataset_id ON jobs (dataset_id);
CREATE INDEX ix_jobs_model_id ON jobs (model_id);
CREATE INDEX ix_jobs_owner ON jobs (owner);
CREATE INDEX jobs_by_state ON jobs (state, lease_expires);
CREATE TABLE events (
  job_id VARCHAR NOT NULL, seq INTEGER NOT NULL, time TIMESTAMP NOT NULL, attempt INTEGER NOT NULL,
  body JSON NOT NULL, PRIMARY KEY (job_id, seq));
CREATE TABLE artifacts (
  job_id VARCHAR NOT NULL, path VARCHAR NOT NULL, size INTEGER NOT NULL, sha256 VARCHAR NOT NULL,
  PRIMARY KEY (job_id, path));
