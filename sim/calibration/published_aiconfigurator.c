/*
 * aiconfigurator's tables as it publishes them, a CSV with a line of column names and no quotes:
 *
 *   moe   moe_dtype,num_tokens,hidden_size,inter_size,topk,num_experts,moe_tp_size,moe_ep_size,
 *         distribution,latency (ms): the whole operation of one rank; rows of a balanced
 *         distribution only, since what the others touched is not said
 *   gemm  gemm_dtype,m,n,k,latency
 *   nccl  nccl_dtype,num_gpus,message_size (elements),op_name,latency
 *
 * Other columns (framework, version, device, kernel_source) may stand anywhere; kernel_source
 * names the backend.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/options.h"
#include "sim/calibration/published.h"

enum { COLUMN_LIMIT = 64, FIELD_BYTES = 64, BACKEND_BYTES = 128 };

enum column {
    MOE_DTYPE,
    NUM_TOKENS,
    HIDDEN,
    INTER,
    TOPK,
    EXPERTS,
    TP,
    EP,
    DISTRIBUTION,
    LATENCY,
    GEMM_DTYPE,
    M,
    N,
    K,
    NCCL_DTYPE,
    GPUS,
    MESSAGE,
    OP,
    KERNEL,
    COLUMN_COUNT
};

static const char *const names[COLUMN_COUNT] = {
    "moe_dtype",
    "num_tokens",
    "hidden_size",
    "inter_size",
    "topk",
    "num_experts",
    "moe_tp_size",
    "moe_ep_size",
    "distribution",
    "latency",
    "gemm_dtype",
    "m",
    "n",
    "k",
    "nccl_dtype",
    "num_gpus",
    "message_size",
    "op_name",
    "kernel_source",
};

struct reader {
    struct moe_published *out;
    const char *name;
    enum moe_link link;
    unsigned line;
    int at[COLUMN_COUNT]; /* -1: not there */
    char fields[COLUMN_LIMIT][FIELD_BYTES];
    int count;
};

static bool probe(const char *text)
{
    const char *end = strchr(text, '\n');
    const char *latency = strstr(text, "latency");
    return end != NULL && latency != NULL && latency < end &&
           (strncmp(text, "framework,", 10) == 0 || strstr(text, "moe_ep_size") != NULL ||
            strstr(text, "gemm_dtype") != NULL || strstr(text, "nccl_dtype") != NULL);
}

static enum moe_status split(struct reader *reader, const char *line, struct moe_error *err)
{
    const char *end = line + strcspn(line, "\r\n");
    reader->count = 0;
    for (;;) {
        const size_t bytes = strcspn(line, ",\r\n");
        if (reader->count == COLUMN_LIMIT || bytes >= FIELD_BYTES) {
            return moe_fail(err, MOE_PARSE, "%s:%u: more than %d columns, or one of %d bytes",
                            reader->name, reader->line, COLUMN_LIMIT, FIELD_BYTES);
        }
        memcpy(reader->fields[reader->count], line, bytes);
        reader->fields[reader->count++][bytes] = '\0';
        line += bytes;
        if (line >= end) {
            return MOE_OK;
        }
        line++;
    }
}

static const char *field(const struct reader *reader, enum column column)
{
    return reader->at[column] < 0 || reader->at[column] >= reader->count
               ? ""
               : reader->fields[reader->at[column]];
}

static enum moe_status number(const struct reader *reader, enum column column, double min,
                              double max, double *out, struct moe_error *err)
{
    char place[240];
    (void) snprintf(place, sizeof place, "%.180s:%u: %s", reader->name, reader->line,
                    names[column]);
    return moe_parse_real(field(reader, column), place, min, max, out, err);
}

static bool find_dtype(const char *name, enum moe_dtype *out)
{
    static const struct {
        const char *name;
        enum moe_dtype dtype;
    } known[] = {
        { "bfloat16", MOE_DTYPE_BF16 }, { "float16", MOE_DTYPE_BF16 },    { "fp8", MOE_DTYPE_FP8 },
        { "fp8_block", MOE_DTYPE_FP8 }, { "w4a16_mxfp4", MOE_DTYPE_FP4 },
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(known[i].name, name) == 0) {
            *out = known[i].dtype;
            return true;
        }
    }
    return false;
}

/* The backend of a row: its kernel, and the dtype where two of one width differ. */
static const char *backend(const struct reader *reader, const char *dtype)
{
    const char *kernel = field(reader, KERNEL);
    char *text = MOE_NEW(reader->out->arena, char, BACKEND_BYTES);
    if (text == NULL) {
        return "";
    }
    (void) snprintf(text, BACKEND_BYTES, "%.28s%s%.20s", kernel[0] == '\0' ? "published" : kernel,
                    strcmp(dtype, "fp8_block") == 0 ? "-" : "",
                    strcmp(dtype, "fp8_block") == 0 ? "block" : "");
    return text;
}

static bool is_balanced(const char *distribution)
{
    return strcmp(distribution, "balanced") == 0 || strcmp(distribution, "uniform") == 0;
}

static enum moe_status read_moe(struct reader *reader, struct moe_error *err)
{
    double values[EP + 1] = { 0 };
    double latency = 0.0;
    struct moe_published_shape shape = { .op = MOE_SERIES_EXPERT, .gated = true };
    for (int c = NUM_TOKENS; c <= EP; c++) {
        MOE_TRY(number(reader, (enum column) c, 1.0, 1e6, &values[c], err));
    }
    MOE_TRY(number(reader, LATENCY, 1e-6, 1e6, &latency, err));
    if (!is_balanced(field(reader, DISTRIBUTION)) ||
        !find_dtype(field(reader, MOE_DTYPE), &shape.dtype)) {
        reader->out->skipped++;
        return MOE_OK;
    }
    const double choices = values[NUM_TOKENS] * values[TOPK];
    const double touched = fmin(choices, values[EXPERTS]) / values[EP];
    shape.hidden = (uint32_t) values[HIDDEN];
    shape.expert_size = (uint32_t) (values[INTER] / values[TP]);
    shape.tokens = fmax(choices / values[EXPERTS], 1.0);
    shape.active = touched < 1.0 ? 1 : (uint32_t) lround(touched);
    shape.backend = backend(reader, field(reader, MOE_DTYPE));
    shape.ns = latency * 1e6;
    return moe_published_add_shape(reader->out, &shape, err);
}

static enum moe_status read_gemm(struct reader *reader, struct moe_error *err)
{
    double m = 0.0;
    double n = 0.0;
    double k = 0.0;
    double latency = 0.0;
    struct moe_published_shape shape = { .op = MOE_SERIES_GEMM, .active = 1 };
    MOE_TRY(number(reader, M, 1.0, 1e7, &m, err));
    MOE_TRY(number(reader, N, 1.0, 1e6, &n, err));
    MOE_TRY(number(reader, K, 1.0, 1e6, &k, err));
    MOE_TRY(number(reader, LATENCY, 1e-6, 1e6, &latency, err));
    if (!find_dtype(field(reader, GEMM_DTYPE), &shape.dtype)) {
        reader->out->skipped++;
        return MOE_OK;
    }
    shape.hidden = (uint32_t) k;
    shape.expert_size = (uint32_t) n;
    shape.tokens = m;
    shape.backend = backend(reader, field(reader, GEMM_DTYPE));
    shape.ns = latency * 1e6;
    return moe_published_add_shape(reader->out, &shape, err);
}

static enum moe_status read_nccl(struct reader *reader, struct moe_error *err)
{
    static const struct {
        const char *name;
        enum moe_segment_op op;
        double sent;
    } ops[] = {
        { "alltoall", MOE_SEGMENT_ALL_TO_ALL, 1.0 },
        { "all_gather", MOE_SEGMENT_ALL_GATHER, 1.0 },
        { "reduce_scatter", MOE_SEGMENT_REDUCE_SCATTER, 1.0 },
        { "all_reduce", MOE_SEGMENT_ALL_REDUCE, 2.0 },
    };
    double gpus = 0.0;
    double elements = 0.0;
    double latency = 0.0;
    size_t op = 0;
    MOE_TRY(number(reader, GPUS, 2.0, 65536.0, &gpus, err));
    MOE_TRY(number(reader, MESSAGE, 1.0, 1e15, &elements, err));
    MOE_TRY(number(reader, LATENCY, 1e-6, 1e6, &latency, err));
    while (op < sizeof ops / sizeof ops[0] && strcmp(field(reader, OP), ops[op].name) != 0) {
        op++;
    }
    /* One type is enough: bytes decide, and int8 all-reduces are another thing. */
    if (op == sizeof ops / sizeof ops[0] || strcmp(field(reader, NCCL_DTYPE), "half") != 0) {
        reader->out->skipped++;
        return MOE_OK;
    }
    const struct moe_published_exchange exchange = {
        .op = ops[op].op,
        .link = reader->link,
        .ranks = (uint32_t) gpus,
        .bytes = ops[op].sent * elements * 2.0 * (gpus - 1.0) / gpus,
        .ns = latency * 1e6,
    };
    return moe_published_add_exchange(reader->out, &exchange, err);
}

static enum moe_status read_head(struct reader *reader, enum column *kind, struct moe_error *err)
{
    static const enum column needed[3][10] = {
        { MOE_DTYPE, NUM_TOKENS, HIDDEN, INTER, TOPK, EXPERTS, TP, EP, DISTRIBUTION, LATENCY },
        { GEMM_DTYPE, M, N, K, LATENCY, LATENCY, LATENCY, LATENCY, LATENCY, LATENCY },
        { NCCL_DTYPE, GPUS, MESSAGE, OP, LATENCY, LATENCY, LATENCY, LATENCY, LATENCY, LATENCY },
    };
    for (int c = 0; c < COLUMN_COUNT; c++) {
        reader->at[c] = -1;
        for (int i = 0; i < reader->count; i++) {
            reader->at[c] = strcmp(reader->fields[i], names[c]) == 0 ? i : reader->at[c];
        }
    }
    for (int table = 0; table < 3; table++) {
        if (reader->at[needed[table][0]] < 0) {
            continue;
        }
        for (int i = 0; i < 10; i++) {
            if (reader->at[needed[table][i]] < 0) {
                return moe_fail(err, MOE_PARSE, "%s:1: no column %s", reader->name,
                                names[needed[table][i]]);
            }
        }
        *kind = needed[table][0];
        return MOE_OK;
    }
    return moe_fail(err, MOE_PARSE,
                    "%s:1: no column moe_dtype, gemm_dtype or nccl_dtype: another of its tables",
                    reader->name);
}

static enum moe_status read(struct moe_published *out, const char *text, const char *name,
                            const struct moe_published_options *options, struct moe_error *err)
{
    struct reader *reader = MOE_NEW(out->arena, struct reader, 1);
    enum column kind = COLUMN_COUNT;
    if (reader == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory to read it", name);
    }
    reader->out = out;
    reader->link = options->link;
    reader->name = name;
    for (const char *at = text; *at != '\0';) {
        reader->line++;
        if (*at != '\n' && *at != '\r') {
            MOE_TRY(split(reader, at, err));
            if (reader->line == 1) {
                MOE_TRY(read_head(reader, &kind, err));
            } else {
                MOE_TRY(kind == MOE_DTYPE    ? read_moe(reader, err)
                        : kind == GEMM_DTYPE ? read_gemm(reader, err)
                                             : read_nccl(reader, err));
            }
        }
        at += strcspn(at, "\n");
        at += *at == '\n' ? 1 : 0;
    }
    return kind == COLUMN_COUNT ? moe_fail(err, MOE_PARSE, "%s:1: no line of column names", name)
                                : MOE_OK;
}

const struct moe_published_format moe_published_aiconfigurator = {
    .name = "aiconfigurator",
    .summary = "aiconfigurator's moe, gemm and nccl tables (CSV)",
    .probe = probe,
    .read = read,
};
