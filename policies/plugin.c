#include "policies/plugin.h"

#include <dlfcn.h>
#include <string.h>

/* Only the two fields that every ABI has are read before they are known to be right. */
static enum moe_status check(const struct moe_policy *policy, const char *path,
                             struct moe_error *err)
{
    struct moe_error reason = { 0 };
    if (policy == NULL) {
        return moe_fail(err, MOE_POLICY, "%.200s: moe_policy_plugin gives no policy", path);
    }
    if (policy->abi != MOE_POLICY_ABI) {
        return moe_fail(err, MOE_UNSUPPORTED,
                        "%.200s: compiled for policy ABI %u, this moesim has ABI %d: compile it "
                        "again with this moesim's headers",
                        path, policy->abi, MOE_POLICY_ABI);
    }
    if (policy->struct_size != sizeof *policy) {
        return moe_fail(err, MOE_UNSUPPORTED,
                        "%.200s: its policy table has %u bytes, this moesim's has %zu, both of ABI "
                        "%d: compile it again with this moesim's headers",
                        path, policy->struct_size, sizeof *policy, MOE_POLICY_ABI);
    }
    return moe_policy_check_table(policy, &reason) == MOE_OK
               ? MOE_OK
               : moe_fail(err, MOE_POLICY, "%.200s: %s", path, reason.text);
}

enum moe_status moe_plugin_load(const struct moe_policy **out, const char *path,
                                struct moe_error *err)
{
    typedef const struct moe_policy *entry_function(void);
    entry_function *entry = NULL;
    const struct moe_policy *policy = NULL;
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        return moe_fail(err, MOE_IO, "cannot load plug-in: %.400s", dlerror());
    }
    void *symbol = dlsym(library, "moe_policy_plugin");
    /* POSIX lets a data pointer hold a function's address; ISO C has no cast for it. */
    _Static_assert(sizeof entry == sizeof symbol, "a function's address fits a data pointer");
    memcpy(&entry, &symbol, sizeof entry);
    enum moe_status status =
        entry != NULL ? MOE_OK
                      : moe_fail(err, MOE_POLICY,
                                 "%.200s: shows no moe_policy_plugin; define the policy with "
                                 "MOE_POLICY_DEFINE and compile with -DMOE_POLICY_PLUGIN",
                                 path);
    if (status == MOE_OK) {
        policy = entry();
        status = check(policy, path, err);
    }
    if (status != MOE_OK) {
        (void) dlclose(library);
        return status;
    }
    *out = policy;
    return MOE_OK;
}
