#include "calibrate/expert/expert_backend.h"

#include <string.h>

#define BACKEND(name) extern const struct moe_expert_backend moe_expert_backend_##name;
#include "calibrate/expert/expert_backend.def"
#undef BACKEND

const struct moe_expert_backend *const moe_expert_backends[] = {
#define BACKEND(name) &moe_expert_backend_##name,
#include "calibrate/expert/expert_backend.def"
#undef BACKEND
};

const size_t moe_expert_backend_count = sizeof moe_expert_backends / sizeof moe_expert_backends[0];

const struct moe_expert_backend *moe_expert_backend_find(const char *name)
{
    for (size_t i = 0; i < moe_expert_backend_count; i++) {
        if (strcmp(moe_expert_backends[i]->name, name) == 0) {
            return moe_expert_backends[i];
        }
    }
    return NULL;
}
