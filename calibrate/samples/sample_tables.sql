-- Samples: what moecal measured, and all that moesim fit reads of it.
--
-- These tables lie in the same cal.db as the fitted tables (sim/cost/calibration_tables.def):
-- moecal makes the file with only these, moesim fit adds the fitted ones. Columns ending in _us are
-- microseconds, in _s seconds; bytes, FLOP and floating-point operations are plain numbers. Times of
-- day are UTC, ISO 8601. A text that says nothing is '', never NULL.

-- Every GPU ever seen in this file.
CREATE TABLE sample_gpu (
  id INTEGER PRIMARY KEY,
  uuid TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,             -- as the driver says it: 'NVIDIA H200'
  kind TEXT NOT NULL,             -- 'H200'
  sm_count INTEGER NOT NULL,
  l2_bytes INTEGER NOT NULL,
  memory_bytes INTEGER NOT NULL,
  boost_mhz REAL NOT NULL,        -- 0: not known
  power_limit_w REAL NOT NULL);   -- 0: not known, no NVML

-- One call of moecal measure or moecal card.
CREATE TABLE sample_run (
  id INTEGER PRIMARY KEY,
  started_at TEXT NOT NULL,
  command TEXT NOT NULL,          -- verb and options, as they must be said again to go on with it
  moecal TEXT NOT NULL,           -- versions; '' when not used
  driver TEXT NOT NULL,
  cuda TEXT NOT NULL,
  cublas TEXT NOT NULL,
  nccl TEXT NOT NULL,
  seed INTEGER NOT NULL,
  gpu_count INTEGER NOT NULL,
  wall_s REAL,                    -- NULL: not ended in order; a later call may go on with it
  settings TEXT NOT NULL);        -- JSON: environment that matters, limits, hash of the plan

-- Per run and GPU. name: read_bytes_s write_bytes_s copy_bytes_s bf16_flop_s fp8_flop_s (both
-- in a burst) bf16_sustained_flop_s fp8_sustained_flop_s burst_mhz
-- sustained_mhz sustained_w graph_node_ns launch_ns empty_graph_us.
CREATE TABLE sample_ceiling (
  run INTEGER NOT NULL REFERENCES sample_run (id),
  gpu INTEGER NOT NULL REFERENCES sample_gpu (id),
  name TEXT NOT NULL,
  value REAL NOT NULL,
  PRIMARY KEY (run, gpu, name));

CREATE TABLE sample_series (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,      -- expert-7168x2048x32-bf16-own, all_to_all-2
  kind TEXT NOT NULL,             -- expert gemm permute combine gate kv_gqa kv_mla stream launch
                                  -- all_to_all all_to_all_api all_to_all_v all_gather
                                  -- reduce_scatter all_reduce p2p p2p_both peer_copy
                                  -- host_to_device overlap
  models TEXT NOT NULL,           -- model cards of this shape, one space between; '' for none
  hidden INTEGER NOT NULL,        -- expert, permute, combine: width of a token; gemm: K;
                                  -- kv_*: head size (MLA: 576); else 0
  inter INTEGER NOT NULL,         -- expert: intermediate size; gemm: N; kv_*: KV heads; else 0
  units INTEGER NOT NULL,         -- expert: local experts; permute, combine, gate: experts;
                                  -- kv_*: query heads of a rank; else 1
  top_k INTEGER NOT NULL,         -- gate, permute, combine; else 0
  dtype TEXT NOT NULL,            -- bf16 fp8
  activation TEXT NOT NULL,       -- swiglu relu gelu; '' when there is none
  backend TEXT NOT NULL,          -- own lt-expert lt-padded blas-grouped cublaslt nccl copy-engine
  ranks INTEGER NOT NULL,         -- GPUs that take part together; 1: each GPU alone
  src INTEGER NOT NULL,           -- p2p, peer_copy: device indices of the ordered pair; else -1
  dst INTEGER NOT NULL);

-- Planned before anything is measured, with its role drawn by seed.
CREATE TABLE sample_point (
  id INTEGER PRIMARY KEY,
  series INTEGER NOT NULL REFERENCES sample_series (id),
  role TEXT NOT NULL,             -- anchor refine heldout skew sentinel sustained
                                  -- uneven: rows of experts that the fit may use; skew it may not
                                  -- burst: an anchor after light load; the others: settled
  tokens REAL NOT NULL,           -- expert: mean rows per ACTIVE expert; gemm: rows; permute,
                                  -- combine, gate: tokens; kv_*: sequences; stream: bytes; else 0
  active INTEGER NOT NULL,        -- expert: experts with rows; else 1
  row_max INTEGER NOT NULL,       -- expert: rows of the fullest one; else 0
  tiles64 INTEGER NOT NULL,       -- expert: sum of ceil(rows / 64); else 0
  tiles128 INTEGER NOT NULL,
  context REAL NOT NULL,          -- kv_*: tokens of each sequence; else 0
  bytes REAL NOT NULL,            -- moved at least; collectives: sent by the busiest rank
  bytes_per_peer REAL NOT NULL,   -- collectives; else 0
  flops REAL NOT NULL,            -- really asked for, padding not counted
  histogram TEXT NOT NULL,        -- uniform quarter half some (of the experts, all alike) hot8x zipf1.0
                                  -- zipf1.2 half-empty random-N; all_to_all_v: kind of matrix; '' where nothing is spread
  rows BLOB,                      -- expert, not uniform: int32 little endian, rows per expert;
                                  -- all_to_all_v: int64 little endian [src][dst], bytes
  UNIQUE (series, role, tokens, active, context, bytes_per_peer, histogram));

-- One visit of one point on one GPU; of a collective each rank's own times.
CREATE TABLE sample (
  id INTEGER PRIMARY KEY,
  point INTEGER NOT NULL REFERENCES sample_point (id),
  run INTEGER NOT NULL REFERENCES sample_run (id),
  gpu INTEGER NOT NULL REFERENCES sample_gpu (id),
  gpu_rank INTEGER NOT NULL,      -- device index in that run
  pass INTEGER NOT NULL,          -- 1, and 2, 3 for repeats
  seq INTEGER NOT NULL,           -- order on this GPU in this run, from 0
  begin_s REAL NOT NULL,          -- since the run began
  n INTEGER NOT NULL,
  min_us REAL, p5_us REAL, p25_us REAL,
  median_us REAL NOT NULL,
  p75_us REAL, p95_us REAL, p99_us REAL,
  mad_us REAL,
  low_us REAL, high_us REAL,      -- 95 % interval of the median
  mhz REAL NOT NULL,              -- effective clock of the SMs inside the kernels; 0: not known
  watts REAL NOT NULL,            -- 0: not known
  celsius REAL NOT NULL,
  throttle INTEGER NOT NULL,      -- NVML's reasons, or-ed
  error REAL NOT NULL,            -- relative, of the checked output; -1: not checked
  dropped INTEGER NOT NULL,       -- batches thrown away because the driver reported a fault
  flags TEXT NOT NULL);           -- bimodal unphysical wrong unstable unsettled
                                  -- repeat-due-to-sentinel

-- The single times of a seeded share of the samples: float32 little endian, microseconds.
CREATE TABLE sample_raw (sample INTEGER PRIMARY KEY REFERENCES sample (id), us BLOB NOT NULL);

-- About 20 times a second while a run lasts; NULL: the driver does not say.
CREATE TABLE sample_nvml (
  run INTEGER NOT NULL REFERENCES sample_run (id),
  gpu INTEGER NOT NULL REFERENCES sample_gpu (id),
  t_s REAL NOT NULL,
  sm_mhz INTEGER, memory_mhz INTEGER, watts REAL, celsius REAL, throttle INTEGER);

CREATE INDEX sample_by_point ON sample (point);
CREATE INDEX sample_point_by_series ON sample_point (series);
