extern "C" int moe_expert_gemm_v2(const void*,void*){return 801;}
