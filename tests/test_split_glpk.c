/* The min-max split against GLPK's simplex on random layers of up to 12 GPUs: two programs that
 * share nothing find the same optimum. Built where libglpk is installed. */
#include <criterion/criterion.h>
#include <glpk.h>

#include "policies/solve/split.h"
#include "tests/split_case.h"

enum { CASES = 400, ENTRIES = 4 * CASE_SLOTS + CASE_GPUS };

/* min M; rows: one per expert (sum of its copies = load), one per GPU (sum - M <= 0). */
static double solve(const struct split_case *c)
{
    int row[ENTRIES + 1];
    int column[ENTRIES + 1];
    double value[ENTRIES + 1];
    int entries = 0;
    const int experts = (int) c->shape.expert_count;
    const int gpus = (int) c->shape.gpu_count;
    glp_prob *problem = glp_create_prob();
    glp_smcp options;
    glp_add_rows(problem, experts + gpus);
    glp_add_cols(problem, 1 + (int) c->copy_count);
    glp_set_col_bnds(problem, 1, GLP_LO, 0.0, 0.0);
    glp_set_obj_coef(problem, 1, 1.0);
    for (int gpu = 0; gpu < gpus; gpu++) {
        glp_set_row_bnds(problem, experts + gpu + 1, GLP_UP, 0.0, 0.0);
        entries++;
        row[entries] = experts + gpu + 1;
        column[entries] = 1;
        value[entries] = -1.0;
    }
    for (int expert = 0; expert < experts; expert++) {
        const double load = (double) c->total[expert];
        glp_set_row_bnds(problem, expert + 1, GLP_FX, load, load);
        for (uint32_t i = c->first_copy[expert]; i < c->first_copy[expert + 1]; i++) {
            glp_set_col_bnds(problem, 2 + (int) i, GLP_LO, 0.0, 0.0);
            for (int side = 0; side < 2; side++) {
                entries++;
                row[entries] = side == 0 ? expert + 1 : experts + c->gpu_of_copy[i] + 1;
                column[entries] = 2 + (int) i;
                value[entries] = 1.0;
            }
        }
    }
    glp_load_matrix(problem, entries, row, column, value);
    glp_init_smcp(&options);
    options.msg_lev = GLP_MSG_OFF;
    cr_assert_eq(glp_simplex(problem, &options), 0);
    cr_assert_eq(glp_get_status(problem), GLP_OPT);
    const double optimum = glp_get_obj_val(problem);
    glp_delete_prob(problem);
    return optimum;
}

Test(split_glpk, finds_the_optimum_of_the_simplex)
{
    static struct split_case c;
    struct moe_arena arena;
    struct moe_hosts hosts;
    struct moe_split split;
    cr_assert_eq(moe_arena_init(&arena, 1 << 20, NULL), MOE_OK);
    for (uint64_t index = 0; index < CASES; index++) {
        double load[CASE_EXPERTS];
        int64_t scaled[CASE_EXPERTS];
        split_case_draw(&c, 1000000 + index, CASE_GPUS);
        moe_arena_reset(&arena);
        cr_assert_eq(moe_hosts_init(&hosts, &arena, &c.shape, NULL), MOE_OK);
        cr_assert_eq(moe_split_init(&split, &arena, &c.shape, NULL), MOE_OK);
        moe_hosts_build(&hosts, c.first_copy, c.gpu_of_copy);
        for (uint32_t expert = 0; expert < c.shape.expert_count; expert++) {
            load[expert] = (double) c.total[expert];
        }
        const double glpk = solve(&c);
        const double ours = moe_split_bound(&split, &hosts, load, scaled);
        cr_assert_float_eq(ours, glpk, 1e-6 * glpk + 1e-9, "case %lu: %.9g, GLPK %.9g",
                           (unsigned long) index, ours, glpk);
    }
    moe_arena_finish(&arena);
    (void) glp_free_env();
}
