/*
 * Plug-in: a policy's own file, compiled outside the tree as a shared object.
 *
 *   cc -std=c17 -O2 -fPIC -shared -fvisibility=hidden -DMOE_POLICY_PLUGIN -I MOESIM_TREE \
 *       mine.c -o mine.so
 *
 * MOE_POLICY_DEFINE then keeps the table static and shows one symbol, moe_policy_plugin. The
 * functions of sim/base and policies are the program's own, taken from it when it is loaded.
 * policies/template/ is a plug-in to start from.
 *
 * A plug-in is trusted code: it runs in the program. What is checked is that it was compiled
 * against this ABI and that its table is sound; what it answers is checked at every call.
 */
#ifndef MOE_POLICIES_PLUGIN_H
#define MOE_POLICIES_PLUGIN_H

#include "policies/policy.h"

/* Loads path (with a '/') until the program ends; the same path again gives the same policy.
 * Errors: MOE_IO when it cannot be loaded; MOE_UNSUPPORTED for another ABI, naming both
 * versions; MOE_POLICY when it has no moe_policy_plugin or its table is unsound. */
enum moe_status moe_plugin_load(const struct moe_policy **out, const char *path,
                                struct moe_error *err) MOE_MUST_CHECK;

#endif
