/* Executes PTX, as lowered by ptx.py, the way a GPU may: CTAs (programs) side by side, warps with a program
 * counter a lane, in any order.
 *
 * Registers are 64 bits a lane, narrower values zero-extended, predicates 0 or 1; immediates and special
 * registers are registers that are set when a CTA starts. Each half of a register has a poison bit a lane:
 * set for what nobody has written, and for what follows from memory that nobody has written. See README.md
 * for what is modelled.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* clang-format off */
#define OPS(X) \
  X(NOP) X(RET) X(BRA) X(BAR_SYNC) X(BAR_WARP_SYNC) X(MOV) X(UNPACK2) X(PACK2) X(LD_PARAM) X(LD_GLOBAL) \
  X(ST_GLOBAL) X(LD_SHARED) X(ST_SHARED) X(LDMATRIX) X(STMATRIX) X(ATOM_ADD_32) X(ATOM_MIN_S32) \
  X(ATOM_MAX_S32) X(ATOM_ADD_64) X(ATOM_MIN_S64) X(ATOM_MAX_S64) X(ATOM_OR_32) X(ATOM_AND_32) \
  X(ATOM_EXCH_32) X(SHFL_BFLY) X(SHFL_IDX) X(SHFL_UP) X(SHFL_DOWN) X(REDUX_ADD) X(REDUX_MIN_S) \
  X(REDUX_MAX_S) X(REDUX_MIN_U) X(REDUX_MAX_U) X(REDUX_MIN_F) X(REDUX_MAX_F) X(REDUX_AND) X(REDUX_OR) \
  X(REDUX_XOR) X(VOTE_ANY) X(VOTE_ALL) X(VOTE_BALLOT) X(ACTIVEMASK) X(ADD_16) X(ADD_32) X(ADD_64) \
  X(SUB_16) X(SUB_32) X(SUB_64) X(MUL_LO_16) X(MUL_LO_32) X(MUL_LO_64) X(MUL_HI_S32) X(MUL_HI_U32) \
  X(MUL_HI_S64) X(MUL_HI_U64) X(MUL_WIDE_S32) X(MUL_WIDE_U32) X(MUL_WIDE_S16) X(MUL_WIDE_U16) X(MAD_LO_32) \
  X(MAD_LO_64) X(MAD_WIDE_S32) X(MAD_WIDE_U32) X(DIV_S32) X(DIV_U32) X(REM_S32) X(REM_U32) X(DIV_S64) \
  X(DIV_U64) X(REM_S64) X(REM_U64) X(AND) X(OR) X(XOR) X(NOT_16) X(NOT_32) X(NOT_64) X(NOT_PRED) X(SHL_16) \
  X(SHL_32) X(SHL_64) X(SHR_S16) X(SHR_U16) X(SHR_S32) X(SHR_U32) X(SHR_S64) X(SHR_U64) X(BFE_S32) \
  X(BFE_U32) X(POPC_32) X(CLZ_32) X(PRMT) X(NEG_S32) X(NEG_S64) X(ABS_S32) X(MIN_S32) X(MAX_S32) \
  X(MIN_U32) X(MAX_U32) X(MIN_S64) X(MAX_S64) X(MIN_U64) X(MAX_U64) X(MIN_S16) X(MAX_S16) X(SELP) \
  X(SETP_INT) X(SETP_F32) X(SETP_F16) X(SETP_BF16) X(ABS_F16) X(ABS_BF16) X(ABS_F16X2) X(ABS_BF16X2) \
  X(SETP_F64) X(CVT_INT) X(CVT_F32_S32) X(CVT_F32_U32) X(CVT_F64_S32) X(CVT_F64_F32) X(CVT_F32_F64) \
  X(CVT_S32_F64) X(CVT_S32_F32) X(CVT_U32_F32) X(CVT_F32_F16) X(CVT_F32_BF16) X(CVT_F32_S64) \
  X(CVT_F64_S64) X(ADD_F32) X(SUB_F32) X(MUL_F32) X(FMA_F32) X(FMA_SAT_F32) X(MIN_F32) X(MAX_F32) \
  X(MIN_NAN_F32) X(MAX_NAN_F32) X(NEG_F32) X(ABS_F32) X(DIV_F32) X(SQRT_F32) X(ADD_F64) X(SUB_F64) \
  X(MUL_F64) X(FMA_F64) X(DIV_F64) X(NEG_F64) X(ABS_F64) X(MIN_F64) X(MAX_F64) X(DIV_APPROX) X(ADD_F32X2) \
  X(SUB_F32X2) X(MUL_F32X2) X(FMA_F32X2) X(RCP_APPROX) X(LG2_APPROX) X(EX2_APPROX) X(SQRT_APPROX) \
  X(RSQRT_APPROX)
/* clang-format on */

enum {
#define X(n) n,
  OPS(X)
#undef X
      NUM_OPS
};
static const char *const NAMES[] = {
#define X(n) #n,
    OPS(X)
#undef X
};
int op_count(void) { return NUM_OPS; }
const char *op_name(int i) { return NAMES[i]; }

/* comparisons of SETP; float ones are false of NaN, those + 16 true */
enum { EQ, NE, LT, LE, GT, GE, NUM, NAN_ };

typedef struct {
  int32_t op, pred, negated, nd, ns;
  int32_t d[4], s[8];
  int32_t size, count; /* bytes an element, elements (vectors, matrices) */
  int32_t a, b;        /* comparison; signedness, widths */
  int64_t imm;         /* address offset, branch target */
} Ins;

typedef struct {       /* one tensor argument */
  uint64_t base, size; /* virtual address and bytes */
  uint8_t *real;
  const uint8_t *valid; /* a byte each: 1 where an element lies; NULL: all */
  uint8_t *init;        /* a byte each: 0 where nobody has written; NULL: all written */
  int32_t segment;      /* arguments that share memory share a segment */
  int64_t seg_offset;
} Region;

/* Who touched memory last: program + 1 (0: nobody), thread, instruction, and how many barriers of its program
 * and warp it had passed. */
typedef struct {
  int32_t cta, tid, pc;
  uint32_t bar, sync;
} Access;
/* The last writes, reads and atomics, of two programs each, of 4 bytes of global memory or 1 of shared
 * memory. */
typedef struct {
  Access w[2], r[2], a[2];
} Cell;

enum {
  OOB = 1,
  MISALIGNED,
  NULL_SPACE,
  POISON_BRANCH,
  POISON_ADDRESS,
  POISON_ATOMIC,
  RACE,
  SHARED_OOB,
  SHARED_RACE,
  DEADLOCK,
  SYNC_EXITED,
  SHFL_INACTIVE,
  STEPS,
  UNSUPPORTED,
  POISON_SYNC,
  POISON_STORE
};

typedef struct {
  int32_t kind, pc_a, pc_b, what; /* what: of races, level * 16 + how (see ``track``) */
  int64_t count, same;            /* same: of writes that found the value they write */
  int32_t region, cta_a, cta_b, lane;
  int64_t offset;
} Report;

typedef struct {
  const Ins *code;
  int32_t num_ins, num_slots;
  int32_t warps, shared_bytes;
  int64_t grid[3];
  const uint64_t *init_values;
  const uint8_t *init_known; /* of slots */
  const uint8_t *wide;       /* slots of 64 bits */
  int32_t slot_tid[3], slot_ctaid[3], slot_laneid, slot_warpid;
  const uint8_t *params;
  int32_t param_bytes;
  int32_t num_regions;
  const Region *regions;
  int32_t num_segments;
  const int64_t *seg_sizes;
  /* how */
  uint64_t seed;
  int32_t inflight, quantum, lanes_mode, order, approx, check_races, strict_lanes;
  int64_t max_steps;
  /* result */
  Report *reports;
  int32_t max_reports, num_reports;
  int64_t steps, accesses, divergent;
  uint64_t *hits; /* executions of each instruction */
} Launch;

typedef struct {
  uint64_t *R;
  uint32_t *P; /* values; poison of low halves, then of high ones, which only 64 bits have */
  int32_t pc[32];
  int32_t upc;
  uint32_t live, waiting;
  int uniform;
  int barrier;        /* waits at a bar.sync */
  uint32_t bar, sync; /* epochs */
} Warp;

typedef struct {
  int64_t id;
  int alive;
  Warp *warps;
  uint8_t *shared, *shared_init;
  Cell *cells;
} Cta;

static Cell **CELLS;
static uint64_t RNG;
static inline uint32_t rnd(void) {
  RNG ^= RNG << 13;
  RNG ^= RNG >> 7;
  RNG ^= RNG << 17;
  return (uint32_t)(RNG >> 16);
}

static Report *report(Launch *L, int kind, int pc_a, int pc_b, int what) {
  for (int i = 0; i < L->num_reports; i++) {
    Report *r = L->reports + i;
    if (r->kind == kind && r->pc_a == pc_a && r->pc_b == pc_b && r->what == what) {
      r->count++;
      return r;
    }
  }
  if (L->num_reports == L->max_reports) {
    L->reports[L->max_reports - 1].count++;
    return L->reports + L->max_reports - 1;
  }
  Report *r = L->reports + L->num_reports++;
  memset(r, 0, sizeof *r);
  r->kind = kind, r->pc_a = pc_a, r->pc_b = pc_b, r->what = what, r->count = 1, r->region = -1;
  return r;
}

static inline float F(uint64_t x) {
  union {
    uint32_t u;
    float f;
  } v;
  v.u = (uint32_t)x;
  return v.f;
}
static inline uint64_t UF(float f) {
  union {
    uint32_t u;
    float f;
  } v;
  v.f = f;
  return v.u;
}
static inline uint64_t CF(float f) { return isnan(f) ? 0x7fffffffu : UF(f); }
static inline double D(uint64_t x) {
  union {
    uint64_t u;
    double d;
  } v;
  v.u = x;
  return v.d;
}
static inline uint64_t UD(double d) {
  union {
    uint64_t u;
    double d;
  } v;
  v.d = d;
  return isnan(d) ? 0x7fffffffffffffffull : v.u;
}
static inline float ftz(float x) { return fabsf(x) < 0x1p-126f ? copysignf(0.0f, x) : x; }

static float off(int mode, float x, double exact, double relative, double absolute) {
  /* an approximate result: exact but for rounding, or wrong by as much as is documented, the same way for the
   * same operand */
  if (mode && isfinite(exact) && exact != 0) {
    uint32_t h = (uint32_t)(UF(x) * 2654435761u);
    h ^= h >> 15;
    h *= 2246822519u;
    h ^= h >> 13;
    double s = mode == 2   ? 1
               : mode == 3 ? -1
               : mode == 4 ? ((h >> 9) & 1 ? 1 : -1)
                           : (double)(h >> 8) / 8388607.5 - 1;
    exact = absolute ? exact + s * absolute : exact * (1 + s * relative);
  } else if (mode && exact == 0 && absolute && isfinite(x)) {
    exact = (mode == 2 ? 1 : mode == 3 ? -1 : (UF(x) * 2654435761u >> 20 & 1 ? 0.5 : -0.5)) * absolute;
  }
  return ftz((float)exact);
}
static float approx(int op, int mode, float x) {
  x = ftz(x);
  double d = x;
  if (isnan(x)) return x;
  switch (op) {
  case RCP_APPROX: return off(mode, x, 1 / d, 0x1p-23, 0);
  case LG2_APPROX: return x < 0 ? NAN : off(mode, x, log2(d), 0x1p-22, d >= 0.5 && d <= 2 ? 0x1p-22 : 0);
  case EX2_APPROX: return off(mode, x, exp2(d), 0x1p-22, 0);
  case SQRT_APPROX: return x < 0 ? NAN : x == 0 ? x : off(mode, x, sqrt(d), 0x1p-23, 0);
  default:
    return x < 0 ? NAN : x == 0 ? copysignf(INFINITY, x) : off(mode, x, 1 / sqrt(d), 0x1p-22 * 0.758, 0);
  }
}
static float half(uint16_t h) {
  uint32_t s = (h & 0x8000u) << 16, e = h >> 10 & 31, m = h & 1023;
  if (e == 31) return F(s | 0x7f800000u | m << 13);
  if (e == 0) return (s ? -1.0f : 1.0f) * ldexpf((float)m, -24);
  return F(s | (e + 112) << 23 | m << 13);
}
static inline float min_f(float a, float b) {
  if (isnan(a)) return b;
  if (isnan(b)) return a;
  if (a == 0 && b == 0) return signbit(a) ? a : b;
  return a < b ? a : b;
}
static inline float max_f(float a, float b) {
  if (isnan(a)) return b;
  if (isnan(b)) return a;
  if (a == 0 && b == 0) return signbit(a) ? b : a;
  return a > b ? a : b;
}
static inline int64_t sx(uint64_t x, int bytes) {
  return bytes == 8 ? (int64_t)x : bytes == 4 ? (int32_t)x : bytes == 2 ? (int16_t)x : (int8_t)x;
}
static inline uint64_t zx(uint64_t x, int bytes) { return bytes == 8 ? x : x & ((1ull << 8 * bytes) - 1); }

static int compare(int how, int lt, int eq, int gt) {
  switch (how) {
  case EQ: return eq;
  case NE: return lt | gt;
  case LT: return lt;
  case LE: return lt | eq;
  case GT: return gt;
  default: return gt | eq;
  }
}
static int compare_f(int how, double a, double b) {
  int nan = isnan(a) || isnan(b);
  if (how == NUM) return !nan;
  if (how == NAN_) return nan;
  if (nan) return how >> 4 & 1;
  return compare(how & 15, a < b, a == b, a > b);
}

/* ---- races ---- */
#define WATCHED (1 << 28) /* bytes of a segment at most; far strides span more */

static int conflict(const Access *o, const Access *me) {
  if (!o->cta || (o->cta == me->cta && o->tid == me->tid)) return 0;
  if (o->cta != me->cta) return 1;
  if (o->tid >> 5 != me->tid >> 5) return o->bar == me->bar ? 2 : 0;
  return o->sync == me->sync && o->bar == me->bar ? 3 : 0;
}
static void keep(Access *slots, const Access *me) {
  if (!slots[0].cta || slots[0].cta == me->cta)
    slots[0] = *me;
  else
    slots[1] = *me;
}
static void race(Launch *L, int kind, const Access *o, const Access *me, int what, int region, int64_t offset,
                 int same) {
  int level = conflict(o, me);
  if (!level) return;
  Report *r = report(L, kind, o->pc, me->pc, level * 16 + what);
  r->region = region, r->offset = offset, r->cta_a = o->cta - 1, r->cta_b = me->cta - 1, r->lane = me->tid,
  r->same += same;
}
enum { READ, WRITE, ATOMIC };
static void track(Launch *L, int kind, Cell *c, int how, const Access *me, int region, int64_t offset,
                  int same) {
  for (int i = 0; i < 2; i++) {
    if (how == WRITE) race(L, kind, c->w + i, me, 1, region, offset, same);
    if (how == READ) race(L, kind, c->w + i, me, 2, region, offset, 0);
    if (how == WRITE) race(L, kind, c->r + i, me, 5, region, offset, same);
    if (how == WRITE) race(L, kind, c->a + i, me, 3, region, offset, same);
    if (how == ATOMIC) race(L, kind, c->w + i, me, 6, region, offset, 0);
    if (how == ATOMIC) race(L, kind, c->r + i, me, 4, region, offset, 0);
    if (how == READ) race(L, kind, c->a + i, me, 7, region, offset, 0);
  }
  keep(how == WRITE ? c->w : how == READ ? c->r : c->a, me);
}

/* ---- memory ---- */
static Region *locate(Launch *L, uint64_t address, int bytes, int pc, int cta, int lane, int write,
                      int64_t *offset) {
  uint64_t id = (address >> 40) - 1;
  if (id >= (uint64_t)L->num_regions) {
    Report *r = report(L, NULL_SPACE, pc, 0, write);
    r->offset = (int64_t)address, r->cta_a = cta, r->lane = lane;
    return NULL;
  }
  const Region *g = L->regions + id;
  int64_t o = *offset = (int64_t)(address - g->base);
  int bad = o < 0 || o + bytes > (int64_t)g->size;
  if (!bad && g->valid)
    for (int i = 0; i < bytes; i++) bad |= !g->valid[o + i];
  if (bad) {
    Report *r = report(L, OOB, pc, write, (int)id);
    r->region = (int)id, r->offset = o, r->cta_a = cta, r->lane = lane;
    return NULL;
  }
  if (address % bytes) {
    Report *r = report(L, MISALIGNED, pc, write, (int)id);
    r->region = (int)id, r->offset = o, r->cta_a = cta, r->lane = lane;
  }
  return (Region *)g;
}
static void track_global(Launch *L, Region *g, int64_t o, int bytes, int how, const Access *me, int same) {
  L->accesses++;
  Cell *cells = CELLS[g->segment];
  if (!cells) return;
  for (int64_t i = (g->seg_offset + o) >> 2; i <= (g->seg_offset + o + bytes - 1) >> 2; i++)
    track(L, RACE, cells + i, how, me, (int)(g - L->regions), o, same);
}

#define HIGH(P) ((P) + L->num_slots)
#define TAINTED(k) (P[I->s[k]] | HIGH(P)[I->s[k]])
static inline void taint(Launch *L, uint32_t *P, int slot, uint32_t act, uint32_t low, uint32_t high) {
  if (slot < 0) return;
  P[slot] = (P[slot] & ~act) | (low & act);
  HIGH(P)[slot] = L->wide[slot] ? (HIGH(P)[slot] & ~act) | (high & act) : 0;
}
#define LANES                  \
  for (int l = 0; l < 32; l++) \
    if (act >> l & 1)
#define S(k) (R + (size_t)I->s[k] * 32)
#define DD(k) (R + (size_t)I->d[k] * 32)
#define L1(E)                 \
  {                           \
    const uint64_t *A = S(0); \
    uint64_t *O = DD(0);      \
    LANES {                   \
      uint64_t a = A[l];      \
      (void)a;                \
      O[l] = (uint64_t)(E);   \
    }                         \
    break;                    \
  }
#define L2(E)                            \
  {                                      \
    const uint64_t *A = S(0), *B = S(1); \
    uint64_t *O = DD(0);                 \
    LANES {                              \
      uint64_t a = A[l], b = B[l];       \
      O[l] = (uint64_t)(E);              \
    }                                    \
    break;                               \
  }
#define L3(E)                                       \
  {                                                 \
    const uint64_t *A = S(0), *B = S(1), *C = S(2); \
    uint64_t *O = DD(0);                            \
    LANES {                                         \
      uint64_t a = A[l], b = B[l], c = C[l];        \
      O[l] = (uint64_t)(E);                         \
    }                                               \
    break;                                          \
  }
#define s32(x) ((int32_t)(x))
#define u32(x) ((uint32_t)(x))

static int is_sync(int op) {
  return (op >= SHFL_BFLY && op <= VOTE_BALLOT) || op == BAR_WARP_SYNC || op == BAR_SYNC || op == LDMATRIX ||
         op == STMATRIX;
}

static void memory(Launch *L, Cta *T, Warp *W, int wi, const Ins *I, int pc, uint32_t act) {
  uint64_t *R = W->R;
  uint32_t *P = W->P;
  int bytes = I->size * I->count, write = I->op == ST_GLOBAL || I->op == ST_SHARED,
      shared = I->op == LD_SHARED || I->op == ST_SHARED;
  const uint64_t *A = S(0);
  uint32_t bad = TAINTED(0) & act;
  if (bad) {
    Report *r = report(L, POISON_ADDRESS, pc, 0, 0);
    r->cta_a = (int)T->id;
    r->lane = wi * 32 + __builtin_ctz(bad);
  }
  uint32_t poison[4] = {0}, upper[4] = {0};
  LANES {
    uint8_t *at = NULL, *init = NULL;
    int64_t o = 0;
    Region *g = NULL;
    Access me = {(int32_t)T->id + 1, wi * 32 + l, pc, W->bar, W->sync};
    uint64_t address = A[l] + (uint64_t)I->imm;
    if (shared) {
      address = u32(address);
      o = (int64_t)address;
      if (o + bytes > L->shared_bytes) {
        Report *r = report(L, SHARED_OOB, pc, write, 0);
        r->offset = o;
        r->cta_a = (int)T->id;
        r->lane = wi * 32 + l;
      } else {
        if (o % bytes) {
          Report *r = report(L, MISALIGNED, pc, write, -2);
          r->offset = o;
        }
        at = T->shared + o, init = T->shared_init + o;
      }
    } else if ((g = locate(L, address, bytes, pc, (int)T->id, wi * 32 + l, write, &o)))
      at = g->real + o, init = g->init ? g->init + o : NULL;
    int same = 1;
    if (at && write)
      for (int k = 0; k < I->count; k++) {
        uint64_t v = S(1 + k)[l], old = 0;
        memcpy(&old, at + k * I->size, I->size);
        same &= old == zx(v, I->size);
      }
    if (at) {
      if (shared) {
        if (L->check_races)
          for (int64_t i = o; i < o + bytes; i++)
            track(L, SHARED_RACE, T->cells + i, write ? WRITE : READ, &me, -2, o, same);
      } else
        track_global(L, g, o, bytes, write ? WRITE : READ, &me, same);
    }
    for (int k = 0; k < I->count; k++) {
      if (write) {
        if (!at) continue;
        uint64_t v = S(1 + k)[l];
        memcpy(at + k * I->size, &v, I->size);
        uint32_t low = P[I->s[1 + k]] >> l & 1, high = HIGH(P)[I->s[1 + k]] >> l & 1;
        if (init) {
          memset(init + k * I->size, !low, I->size < 4 ? I->size : 4);
          if (I->size == 8) memset(init + k * I->size + 4, !high, 4);
        } else if (low | high) {
          Report *r = report(L, POISON_STORE, pc, 0, 0);
          r->region = (int)(g - L->regions), r->offset = o, r->cta_a = (int)T->id, r->lane = wi * 32 + l;
        }
      } else {
        uint64_t v = 0;
        int low = at != NULL, high = at != NULL;
        if (at) {
          memcpy(&v, at + k * I->size, I->size);
          if (init)
            for (int i = 0; i < I->size; i++) {
              if (i < 4)
                low &= init[k * I->size + i];
              else
                high &= init[k * I->size + i];
            }
        } else
          v = 0xdeadbeefdeadbeefull;
        if (I->d[k] >= 0) {
          DD(k)[l] = I->a ? zx((uint64_t)sx(v, I->size), I->b) : zx(v, I->size);
          poison[k] |= (uint32_t)!low << l;
          upper[k] |= (uint32_t)!high << l;
        }
      }
    }
  }
  if (!write)
    for (int k = 0; k < I->count; k++)
      taint(L, P, I->d[k], act, poison[k] | bad, upper[k] | bad | (I->a ? poison[k] : 0));
}

static void atomic(Launch *L, Cta *T, Warp *W, int wi, const Ins *I, int pc, uint32_t act) {
  uint64_t *R = W->R;
  uint32_t *P = W->P;
  int start = rnd() & 31, step = (rnd() & 15) * 2 + 1; /* lanes in some order */
  uint32_t poison = (TAINTED(0) | TAINTED(1)) & act;
  if (poison) {
    Report *r = report(L, POISON_ATOMIC, pc, 0, 0);
    r->cta_a = (int)T->id;
    r->lane = wi * 32 + __builtin_ctz(poison);
  }
  for (int n = 0; n < 32; n++) {
    int l = (start + n * step) & 31;
    int64_t o;
    if (!(act >> l & 1)) continue;
    Region *g = locate(L, S(0)[l] + (uint64_t)I->imm, I->size, pc, (int)T->id, wi * 32 + l, 1, &o);
    uint64_t old = 0, v = S(1)[l], w = v;
    if (g) {
      Access me = {(int32_t)T->id + 1, wi * 32 + l, pc, W->bar, W->sync};
      memcpy(&old, g->real + o, I->size);
      if (g->init)
        for (int i = 0; i < I->size; i++)
          if (!g->init[o + i]) {
            Report *r = report(L, POISON_ATOMIC, pc, 1, 0);
            r->region = (int)(g - L->regions);
            r->offset = o;
            r->cta_a = (int)T->id;
            break;
          }
      switch (I->op) {
      case ATOM_ADD_32:
      case ATOM_ADD_64: w = old + v; break;
      case ATOM_MIN_S32: w = s32(v) < s32(old) ? v : old; break;
      case ATOM_MAX_S32: w = s32(v) > s32(old) ? v : old; break;
      case ATOM_MIN_S64: w = (int64_t)v < (int64_t)old ? v : old; break;
      case ATOM_MAX_S64: w = (int64_t)v > (int64_t)old ? v : old; break;
      case ATOM_OR_32: w = old | v; break;
      case ATOM_AND_32: w = old & v; break;
      default: w = v;
      }
      memcpy(g->real + o, &w, I->size);
      track_global(L, g, o, I->size, ATOMIC, &me, 0);
    }
    if (I->nd && I->d[0] >= 0) DD(0)[l] = zx(old, I->size);
  }
  if (I->nd) taint(L, P, I->d[0], act, poison, poison);
}

static void matrix(Launch *L, Cta *T, Warp *W, int wi, const Ins *I, int pc, uint32_t act) {
  /* m8n8.b16: row r of matrix m lies where lane 8 m + r says; lane l holds 4 bytes of row l / 4 */
  uint64_t *R = W->R;
  uint32_t *P = W->P;
  const uint64_t *A = S(0);
  int store = I->op == STMATRIX;
  uint32_t poison[4] = {0};
  if (P[I->s[0]] & act) report(L, POISON_ADDRESS, pc, 0, 0)->cta_a = (int)T->id;
  for (int m = 0; m < I->count; m++)
    for (int l = 0; l < 32; l++) {
      int from = 8 * m + l / 4;
      int64_t o = u32(A[from] + (uint64_t)I->imm) + 4 * (l % 4);
      Access me = {(int32_t)T->id + 1, wi * 32 + from, pc, W->bar, W->sync};
      if ((o - 4 * (l % 4)) % 16) report(L, MISALIGNED, pc, store, -2)->offset = o;
      if (o + 4 > L->shared_bytes) {
        Report *r = report(L, SHARED_OOB, pc, store, 0);
        r->offset = o;
        r->cta_a = (int)T->id;
        continue;
      }
      uint32_t old;
      memcpy(&old, T->shared + o, 4);
      if (L->check_races)
        for (int i = 0; i < 4; i++)
          track(L, SHARED_RACE, T->cells + o + i, store ? WRITE : READ, &me, -2, o,
                store && old == u32(S(1 + m)[l]));
      if (store) {
        uint32_t v = u32(S(1 + m)[l]);
        memcpy(T->shared + o, &v, 4);
        memset(T->shared_init + o, !(P[I->s[1 + m]] >> l & 1), 4);
      } else {
        uint32_t v;
        memcpy(&v, T->shared + o, 4);
        DD(m)[l] = v;
        for (int i = 0; i < 4; i++)
          if (!T->shared_init[o + i]) poison[m] |= 1u << l;
      }
    }
  if (!store)
    for (int m = 0; m < I->count; m++) taint(L, P, I->d[m], ~0u, poison[m], 0);
}

/* Executes the next instruction of a warp. Returns 0 if it cannot go on now. */
static int step(Launch *L, Cta *T, int wi) {
  Warp *W = T->warps + wi;
  uint64_t *R = W->R;
  uint32_t *P = W->P;
  int pc;
  uint32_t group;
again:
  if (W->uniform)
    pc = W->upc, group = W->live;
  else {
    uint32_t ready = W->live & ~W->waiting;
    if (!ready) {
      Report *r = report(L, DEADLOCK, W->pc[__builtin_ctz(W->live)], 0, 0);
      r->cta_a = (int)T->id;
      r->lane = wi * 32;
      W->live = 0;
      return 1;
    }
    if (L->lanes_mode == 0) {
      pc = 1 << 30;
      for (int l = 0; l < 32; l++)
        if (ready >> l & 1 && W->pc[l] < pc) pc = W->pc[l];
    } else {
      int l = rnd() & 31;
      while (!(ready >> l & 1)) l = (l + 1) & 31;
      pc = W->pc[l];
    }
    group = 0;
    for (int l = 0; l < 32; l++)
      if (W->live >> l & 1 && W->pc[l] == pc) group |= 1u << l;
    if (group == W->live) { W->uniform = 1, W->upc = pc, W->waiting = 0; }
  }
  const Ins *I = L->code + pc;
  if (is_sync(I->op)) {
    uint32_t mask = 0xffffffffu;
    if ((I->op >= SHFL_BFLY && I->op <= VOTE_BALLOT) || I->op == BAR_WARP_SYNC) {
      int k = I->ns - 1;
      mask = u32(S(k)[__builtin_ctz(group)]);
      if (P[I->s[k]] & group) report(L, POISON_SYNC, pc, 0, 0);
    }
    if (I->op != BAR_SYNC && mask & ~W->live) { report(L, SYNC_EXITED, pc, 0, 0)->cta_a = (int)T->id; }
    uint32_t need = mask & W->live;
    if ((group & need) != need) {
      W->waiting |= group;
      W->uniform = 0;
      goto again;
    }
    W->waiting &= ~group;
    if (!L->strict_lanes && group == W->live) W->sync++;
  } else if (L->lanes_mode == 2 && group & (group - 1)) { /* some of the lanes that could go on */
    uint32_t some = group & ~W->waiting & rnd() & (rnd() | 0x55555555u);
    if (some && some != group) {
      if (W->uniform) {
        for (int l = 0; l < 32; l++) W->pc[l] = pc;
        W->uniform = 0;
      }
      group = some;
    }
  }
  if (group != W->live) L->divergent++;
  L->hits[pc]++;
  uint32_t act = group, guard_poison = 0;
  if (I->pred >= 0) {
    const uint64_t *G = R + (size_t)I->pred * 32;
    uint32_t on = 0;
    LANES
      if ((G[l] & 1) != (uint64_t)I->negated) on |= 1u << l;
    guard_poison = P[I->pred] & act;
    if (guard_poison) {
      Report *r = report(L, POISON_BRANCH, pc, 0, 0);
      r->cta_a = (int)T->id;
      r->lane = wi * 32 + __builtin_ctz(guard_poison);
    }
    act = on;
  }
  if (I->op == BRA) {
    uint32_t stay = group & ~act;
    if (W->uniform) {
      if (!act)
        W->upc = pc + 1;
      else if (!stay)
        W->upc = (int)I->imm;
      else {
        W->uniform = 0;
        for (int l = 0; l < 32; l++) W->pc[l] = act >> l & 1 ? (int)I->imm : pc + 1;
      }
    } else {
      for (int l = 0; l < 32; l++)
        if (group >> l & 1) W->pc[l] = act >> l & 1 ? (int)I->imm : pc + 1;
    }
    return 1;
  }
  if (I->op == RET) {
    W->live &= ~act;
    if (W->uniform)
      W->upc = pc + 1;
    else
      for (int l = 0; l < 32; l++)
        if (group >> l & 1) W->pc[l] = pc + 1;
    return 1;
  }
  if (W->uniform)
    W->upc = pc + 1;
  else
    for (int l = 0; l < 32; l++)
      if (group >> l & 1) W->pc[l] = pc + 1;
  if (I->op == BAR_SYNC) {
    W->barrier = 1;
    return 0;
  }
  if (!act) return 1;

  uint32_t poison = 0;
  for (int k = 0; k < I->ns; k++) poison |= TAINTED(k);
  switch (I->op) {
  case NOP: break;
  case BAR_WARP_SYNC: W->sync++; break;
  case LD_GLOBAL:
  case ST_GLOBAL:
  case LD_SHARED:
  case ST_SHARED: memory(L, T, W, wi, I, pc, act); return 1;
  case LDMATRIX:
  case STMATRIX: matrix(L, T, W, wi, I, pc, act); return 1;
  case LD_PARAM: {
    const uint64_t *A = S(0);
    uint64_t *O = DD(0);
    LANES {
      int64_t o = (int64_t)u32(A[l]) + I->imm;
      uint64_t v = 0;
      if (o + I->size > L->param_bytes || o % I->size)
        report(L, OOB, pc, 0, -3)->offset = o;
      else
        memcpy(&v, L->params + o, I->size);
      O[l] = I->a ? zx((uint64_t)sx(v, I->size), I->b) : v;
    }
    break;
  }
  case MOV: {
    const uint64_t *A = S(0);
    uint64_t *O = DD(0);
    LANES O[l] = I->size == 8 ? A[l] : zx(A[l], I->size);
    taint(L, P, I->d[0], act, P[I->s[0]], HIGH(P)[I->s[0]]);
    return 1;
  }
  case UNPACK2: {
    const uint64_t *A = S(0);
    int bits = 8 * I->size;
    LANES {
      uint64_t a = A[l];
      for (int k = 0; k < 2; k++)
        if (I->d[k] >= 0) DD(k)[l] = zx(a >> k * bits, I->size);
    }
    uint32_t low = I->size == 4 ? P[I->s[0]] : poison, high = I->size == 4 ? HIGH(P)[I->s[0]] : poison;
    taint(L, P, I->d[0], act, low, low), taint(L, P, I->d[1], act, high, high);
    return 1;
  }
  case PACK2: {
    const uint64_t *A = S(0), *B = S(1);
    uint64_t *O = DD(0);
    LANES O[l] = zx(A[l], I->size) | B[l] << 8 * I->size;
    if (I->size == 4)
      taint(L, P, I->d[0], act, P[I->s[0]], P[I->s[1]]);
    else
      taint(L, P, I->d[0], act, poison, poison);
    return 1;
  }
  case SHFL_BFLY:
  case SHFL_IDX:
  case SHFL_UP:
  case SHFL_DOWN: {
    uint64_t in[32];
    memcpy(in, S(0), sizeof in);
    uint32_t pin = P[I->s[0]], pout = 0;
    LANES {
      int b = (int)(S(1)[l] & 31), c = (int)S(2)[l], clamp = c & 31, seg = c >> 8 & 31;
      int top = (l & seg) | (clamp & ~seg), bottom = l & seg, j, ok;
      if (I->op == SHFL_BFLY)
        j = l ^ b, ok = j <= top;
      else if (I->op == SHFL_IDX)
        j = bottom | (b & ~seg), ok = j <= top;
      else if (I->op == SHFL_UP)
        j = l - b, ok = j >= top;
      else
        j = l + b, ok = j <= top;
      if (!ok) j = l;
      if (!(group >> j & 1)) report(L, SHFL_INACTIVE, pc, 0, 0)->cta_a = (int)T->id;
      DD(0)[l] = in[j];
      if (pin >> j & 1) pout |= 1u << l;
      if (I->nd > 1) DD(1)[l] = ok;
    }
    P[I->d[0]] = (P[I->d[0]] & ~act) | ((pout | P[I->s[1]]) & act);
    if (I->nd > 1) P[I->d[1]] &= ~act;
    return 1;
  }
  case REDUX_ADD:
  case REDUX_MIN_S:
  case REDUX_MAX_S:
  case REDUX_MIN_U:
  case REDUX_MAX_U:
  case REDUX_MIN_F:
  case REDUX_MAX_F:
  case REDUX_AND:
  case REDUX_OR:
  case REDUX_XOR: {
    int first = 1;
    uint32_t r = 0;
    LANES {
      uint32_t v = u32(S(0)[l]);
      if (first)
        r = v, first = 0;
      else
        switch (I->op) {
        case REDUX_ADD: r += v; break;
        case REDUX_MIN_S:
          if (s32(v) < s32(r)) r = v;
          break;
        case REDUX_MAX_S:
          if (s32(v) > s32(r)) r = v;
          break;
        case REDUX_MIN_U:
          if (v < r) r = v;
          break;
        case REDUX_MAX_U:
          if (v > r) r = v;
          break;
        case REDUX_MIN_F: r = (uint32_t)CF(min_f(F(r), F(v))); break;
        case REDUX_MAX_F: r = (uint32_t)CF(max_f(F(r), F(v))); break;
        case REDUX_AND: r &= v; break;
        case REDUX_OR: r |= v; break;
        default: r ^= v;
        }
    }
    LANES
      DD(0)[l] = r;
    P[I->d[0]] = (P[I->d[0]] & ~act) | (P[I->s[0]] & act ? act : 0);
    return 1;
  }
  case VOTE_ANY:
  case VOTE_ALL:
  case VOTE_BALLOT: {
    uint32_t b = 0;
    LANES
      if ((S(0)[l] & 1) != (uint64_t)I->a) b |= 1u << l;
    LANES
      DD(0)[l] = I->op == VOTE_BALLOT ? b : I->op == VOTE_ANY ? b != 0 : b == act;
    P[I->d[0]] = (P[I->d[0]] & ~act) | (P[I->s[0]] & act ? act : 0);
    return 1;
  }
  case ACTIVEMASK: {
    LANES
      DD(0)[l] = act;
    break;
  }
  case ADD_16: L2((uint16_t)(a + b))
  case ADD_32: L2(u32(a + b))
  case ADD_64: L2(a + b)
  case SUB_16: L2((uint16_t)(a - b))
  case SUB_32: L2(u32(a - b))
  case SUB_64: L2(a - b)
  case MUL_LO_16: L2((uint16_t)(a * b))
  case MUL_LO_32: L2(u32(a * b))
  case MUL_LO_64: L2(a * b)
  case MUL_HI_S32: L2(u32(((int64_t)s32(a) * s32(b)) >> 32))
  case MUL_HI_U32: L2(u32((uint64_t)u32(a) * u32(b) >> 32))
  case MUL_HI_U64: L2((uint64_t)((unsigned __int128)a * b >> 64))
  case MUL_HI_S64: L2((uint64_t)((__int128)(int64_t)a * (int64_t)b >> 64))
  case MUL_WIDE_S32: L2((int64_t)s32(a) * s32(b))
  case MUL_WIDE_U32: L2((uint64_t)u32(a) * u32(b))
  case MUL_WIDE_S16: L2(u32((int16_t)a * (int16_t)b))
  case MUL_WIDE_U16: L2(u32((uint32_t)(uint16_t)a * (uint16_t)b))
  case MAD_LO_32: L3(u32(a * b + c))
  case MAD_LO_64: L3(a * b + c)
  case MAD_WIDE_S32: L3((uint64_t)((int64_t)s32(a) * s32(b)) + c)
  case MAD_WIDE_U32: L3((uint64_t)u32(a) * u32(b) + c)
  /* division by zero: all bits set, as GPUs have it */
  case DIV_S32: L2(s32(b) == 0 ? 0xffffffffu : s32(b) == -1 ? u32(0 - a) : u32(s32(a) / s32(b)))
  case DIV_U32: L2(u32(b) ? u32(a) / u32(b) : 0xffffffffu)
  case REM_S32: L2(s32(b) == 0 ? u32(a) : s32(b) == -1 ? 0 : u32(s32(a) % s32(b)))
  case REM_U32: L2(u32(b) ? u32(a) % u32(b) : u32(a))
  case DIV_S64: L2((int64_t)b == 0 ? ~0ull : (int64_t)b == -1 ? 0 - a : (uint64_t)((int64_t)a / (int64_t)b))
  case DIV_U64: L2(b ? a / b : ~0ull)
  case REM_S64: L2((int64_t)b == 0 ? a : (int64_t)b == -1 ? 0 : (uint64_t)((int64_t)a % (int64_t)b))
  case REM_U64: L2(b ? a % b : a)
  case AND:
  case OR:
  case XOR: {
    const uint64_t *A = S(0), *B = S(1);
    uint64_t *O = DD(0);
    uint32_t out[2] = {0};
    LANES {
      uint64_t a = A[l], b = B[l];
      O[l] = I->op == AND ? a & b : I->op == OR ? a | b : a ^ b;
      /* half by half; what is known decides: 0 & x, and 1 | x of predicates */
      for (int h = 0; h < (I->size == 8 ? 2 : 1); h++) {
        const uint32_t *half = h ? HIGH(P) : P;
        int ka = !(half[I->s[0]] >> l & 1), kb = !(half[I->s[1]] >> l & 1);
        uint32_t x = u32(a >> 32 * h), y = u32(b >> 32 * h),
                 full = I->size == 0 ? 1 : u32(zx(~0ull, I->size < 4 ? I->size : 4));
        int decided = I->op == AND  ? (ka && !x) || (kb && !y)
                      : I->op == OR ? (ka && x == full) || (kb && y == full)
                                    : 0;
        if (!decided && !(ka && kb)) out[h] |= 1u << l;
      }
    }
    taint(L, P, I->d[0], act, out[0], out[1]);
    return 1;
  }
  case NOT_16: L1((uint16_t)~a)
  case NOT_32: L1(u32(~a))
  case NOT_64: L1(~a)
  case NOT_PRED: L1(!a)
  case SHL_16: L2(u32(b) > 15 ? 0 : (uint16_t)(a << u32(b)))
  case SHL_32: L2(u32(b) > 31 ? 0 : u32(a << u32(b)))
  case SHL_64: {
    const uint64_t *A = S(0), *B = S(1);
    uint64_t *O = DD(0);
    int by32 = !P[I->s[1]];
    uint32_t low = P[I->s[0]];
    LANES {
      by32 &= u32(B[l]) == 32;
      O[l] = u32(B[l]) > 63 ? 0 : A[l] << u32(B[l]);
    }
    if (by32)
      taint(L, P, I->d[0], act, 0, low);
    else
      taint(L, P, I->d[0], act, poison, poison);
    return 1;
  }
  case SHR_S16: L2((uint16_t)((int16_t)a >> (u32(b) > 15 ? 15 : u32(b))))
  case SHR_U16: L2(u32(b) > 15 ? 0 : (uint16_t)a >> u32(b))
  case SHR_S32: L2(u32(s32(a) >> (u32(b) > 31 ? 31 : u32(b))))
  case SHR_U32: L2(u32(b) > 31 ? 0 : u32(a) >> u32(b))
  case SHR_S64:
  case SHR_U64: {
    const uint64_t *A = S(0), *B = S(1);
    uint64_t *O = DD(0);
    int by32 = !P[I->s[1]];
    uint32_t high = HIGH(P)[I->s[0]];
    LANES {
      uint32_t n = u32(B[l]);
      by32 &= n == 32;
      O[l] = I->op == SHR_S64 ? (uint64_t)((int64_t)A[l] >> (n > 63 ? 63 : n)) : n > 63 ? 0 : A[l] >> n;
    }
    if (by32)
      taint(L, P, I->d[0], act, high, I->op == SHR_S64 ? high : 0);
    else
      taint(L, P, I->d[0], act, poison, poison);
    return 1;
  }
  case BFE_U32:
  case BFE_S32: {
    const uint64_t *A = S(0), *B = S(1), *C = S(2);
    uint64_t *O = DD(0);
    LANES {
      uint32_t a = u32(A[l]);
      int pos = B[l] & 255, len = C[l] & 255,
          neg = I->op == BFE_S32 && len ? a >> (pos + len - 1 < 31 ? pos + len - 1 : 31) & 1 : 0;
      uint32_t r = 0;
      for (int i = 0; i < 32; i++) r |= (uint32_t)(i < len && pos + i < 32 ? a >> (pos + i) & 1 : neg) << i;
      O[l] = r;
    }
    break;
  }
  case POPC_32: L1(__builtin_popcount(u32(a)))
  case CLZ_32: L1(u32(a) ? __builtin_clz(u32(a)) : 32)
  case PRMT: {
    const uint64_t *A = S(0), *B = S(1), *C = S(2);
    uint64_t *O = DD(0);
    LANES {
      uint64_t v = u32(A[l]) | B[l] << 32;
      uint32_t r = 0;
      for (int i = 0; i < 4; i++) {
        int n = C[l] >> 4 * i & 15;
        uint32_t y = v >> 8 * (n & 7) & 255;
        r |= (n & 8 ? (y & 128 ? 255u : 0u) : y) << 8 * i;
      }
      O[l] = r;
    }
    break;
  }
  case NEG_S32: L1(u32(0 - a))
  case NEG_S64: L1(0 - a)
  case ABS_S32: L1(s32(a) < 0 ? u32(0 - a) : a)
  case MIN_S32: L2(s32(a) < s32(b) ? a : b)
  case MAX_S32: L2(s32(a) > s32(b) ? a : b)
  case MIN_U32: L2(u32(a) < u32(b) ? a : b)
  case MAX_U32: L2(u32(a) > u32(b) ? a : b)
  case MIN_S16: L2((int16_t)a < (int16_t)b ? a : b)
  case MAX_S16: L2((int16_t)a > (int16_t)b ? a : b)
  case MIN_S64: L2((int64_t)a < (int64_t)b ? a : b)
  case MAX_S64: L2((int64_t)a > (int64_t)b ? a : b)
  case MIN_U64: L2(a < b ? a : b)
  case MAX_U64: L2(a > b ? a : b)
  case SELP: {
    const uint64_t *A = S(0), *B = S(1), *C = S(2);
    uint64_t *O = DD(0);
    uint32_t out[2] = {0};
    const uint32_t pa = P[I->s[0]], pb = P[I->s[1]], qa = HIGH(P)[I->s[0]], qb = HIGH(P)[I->s[1]],
                   pc = P[I->s[2]];
    LANES {
      uint64_t a = A[l], b = B[l];
      int c = C[l] & 1;
      O[l] = c ? a : b;
      int open = pc >> l & 1 &&
                 (a != b || (pa | pb | qa | qb) >> l & 1); /* of two equal values it does not matter which */
      if ((c ? pa : pb) >> l & 1 || open) out[0] |= 1u << l;
      if ((c ? qa : qb) >> l & 1 || open) out[1] |= 1u << l;
    }
    taint(L, P, I->d[0], act, out[0], out[1]);
    return 1;
  }
  case SETP_INT: {
    const uint64_t *A = S(0), *B = S(1);
    uint64_t *O = DD(0);
    LANES {
      int r;
      if (I->b) {
        int64_t a = sx(A[l], I->size), b = sx(B[l], I->size);
        r = compare(I->a, a < b, a == b, a > b);
      } else {
        uint64_t a = zx(A[l], I->size), b = zx(B[l], I->size);
        r = compare(I->a, a < b, a == b, a > b);
      }
      O[l] = r;
    }
    break;
  }
  case SETP_F32: L2(compare_f(I->a, F(a), F(b)))
  case SETP_F64: L2(compare_f(I->a, D(a), D(b)))
  case SETP_F16: L2(compare_f(I->a, half((uint16_t)a), half((uint16_t)b)))
  case SETP_BF16: L2(compare_f(I->a, F((a & 0xffff) << 16), F((b & 0xffff) << 16)))
  case ABS_F16:
  case ABS_BF16: L1(a & 0x7fff)
  case ABS_F16X2:
  case ABS_BF16X2: L1(a & 0x7fff7fff)
  case CVT_INT: {
    const uint64_t *A = S(0);
    uint64_t *O = DD(0);
    LANES O[l] = zx(I->a ? (uint64_t)sx(A[l], I->b) : zx(A[l], I->b), I->size);
    taint(L, P, I->d[0], act, P[I->s[0]], I->b == 8 ? HIGH(P)[I->s[0]] : I->a ? P[I->s[0]] : 0);
    return 1;
  }
  case CVT_F32_S32: L1(UF((float)s32(a)))
  case CVT_F32_U32: L1(UF((float)u32(a)))
  case CVT_F64_S32: L1(UD((double)s32(a)))
  case CVT_F32_S64: L1(UF((float)(int64_t)a))
  case CVT_F64_S64: L1(UD((double)(int64_t)a))
  case CVT_F64_F32: L1(UD((double)F(a)))
  case CVT_F32_F64: L1(CF((float)D(a)))
  case CVT_S32_F64:
    L1(isnan(D(a))             ? 0x80000000u
       : D(a) >= 2147483647.0  ? 0x7fffffffu
       : D(a) <= -2147483648.0 ? 0x80000000u
                               : u32((int32_t)D(a)))
  case CVT_S32_F32:
    L1(isnan(F(a))              ? 0
       : F(a) >= 2147483647.0f  ? 0x7fffffffu
       : F(a) <= -2147483648.0f ? 0x80000000u
                                : u32((int32_t)F(a)))
  case CVT_U32_F32: L1(isnan(F(a)) || F(a) <= 0 ? 0 : F(a) >= 4294967295.0f ? 0xffffffffu : (uint32_t)F(a))
  case CVT_F32_F16: L1(CF(half((uint16_t)a)))
  case CVT_F32_BF16: L1(CF(F((a & 0xffff) << 16)))
  case ADD_F32: L2(CF(F(a) + F(b)))
  case SUB_F32: L2(CF(F(a) - F(b)))
  case MUL_F32: L2(CF(F(a) * F(b)))
  case FMA_F32: L3(CF(fmaf(F(a), F(b), F(c))))
  case FMA_SAT_F32: {
    const uint64_t *A = S(0), *B = S(1), *C = S(2);
    uint64_t *O = DD(0);
    LANES {
      float r = fmaf(F(A[l]), F(B[l]), F(C[l]));
      O[l] = UF(!(r > 0) ? 0.0f : r > 1 ? 1.0f : r);
    }
    break;
  }
  case MIN_F32: L2(CF(min_f(F(a), F(b))))
  case MAX_F32: L2(CF(max_f(F(a), F(b))))
  case MIN_NAN_F32: L2(isnan(F(a)) || isnan(F(b)) ? 0x7fffffffu : UF(min_f(F(a), F(b))))
  case MAX_NAN_F32: L2(isnan(F(a)) || isnan(F(b)) ? 0x7fffffffu : UF(max_f(F(a), F(b))))
  case NEG_F32: L1(u32(a) ^ 0x80000000u)
  case ABS_F32: L1(u32(a) & 0x7fffffffu)
  case DIV_APPROX: {
    const uint64_t *A = S(0), *B = S(1);
    uint64_t *O = DD(0);
    LANES { /* 2 ulp */
      float a = F(A[l]), b = F(B[l]);
      if (I->a) a = ftz(a), b = ftz(b);
      float r = L->approx && a != 0 && b != 0 ? off(L->approx, F(A[l] * 31 ^ B[l]), (double)a / b, 0x1p-22, 0)
                                              : a / b;
      O[l] = CF(I->a ? ftz(r) : r);
    }
    break;
  }
#define H(x) F((x) >> 32)
#define HALVES                                                                   \
  {                                                                              \
    uint32_t low = 0, high = 0;                                                  \
    for (int k = 0; k < I->ns; k++) low |= P[I->s[k]], high |= HIGH(P)[I->s[k]]; \
    taint(L, P, I->d[0], act, low, high);                                        \
    return 1;                                                                    \
  }
#define H2(E)                            \
  {                                      \
    const uint64_t *A = S(0), *B = S(1); \
    uint64_t *O = DD(0);                 \
    LANES {                              \
      uint64_t a = A[l], b = B[l];       \
      O[l] = E;                          \
    }                                    \
    HALVES                               \
  }
#define H3(E)                                       \
  {                                                 \
    const uint64_t *A = S(0), *B = S(1), *C = S(2); \
    uint64_t *O = DD(0);                            \
    LANES {                                         \
      uint64_t a = A[l], b = B[l], c = C[l];        \
      O[l] = E;                                     \
    }                                               \
    HALVES                                          \
  }
  case ADD_F32X2: H2(CF(F(a) + F(b)) | CF(H(a) + H(b)) << 32)
  case SUB_F32X2: H2(CF(F(a) - F(b)) | CF(H(a) - H(b)) << 32)
  case MUL_F32X2: H2(CF(F(a) * F(b)) | CF(H(a) * H(b)) << 32)
  case FMA_F32X2: H3(CF(fmaf(F(a), F(b), F(c))) | CF(fmaf(H(a), H(b), H(c))) << 32)
  case DIV_F32: L2(CF(F(a) / F(b)))
  case SQRT_F32: L1(CF(sqrtf(F(a))))
  case ADD_F64: L2(UD(D(a) + D(b)))
  case SUB_F64: L2(UD(D(a) - D(b)))
  case MUL_F64: L2(UD(D(a) * D(b)))
  case FMA_F64: L3(UD(fma(D(a), D(b), D(c))))
  case DIV_F64: L2(UD(D(a) / D(b)))
  case NEG_F64: L1(a ^ 0x8000000000000000ull)
  case ABS_F64: L1(a & 0x7fffffffffffffffull)
  case MIN_F64: L2(UD(fmin(D(a), D(b))))
  case MAX_F64: L2(UD(fmax(D(a), D(b))))
  case RCP_APPROX:
  case LG2_APPROX:
  case EX2_APPROX:
  case SQRT_APPROX:
  case RSQRT_APPROX: L1(CF(approx(I->op, L->approx, F(a))))
  default:
    if (I->op >= ATOM_ADD_32 && I->op <= ATOM_EXCH_32) {
      atomic(L, T, W, wi, I, pc, act);
      return 1;
    }
    report(L, UNSUPPORTED, pc, 0, I->op);
  }
  for (int k = 0; k < I->nd; k++) taint(L, P, I->d[k], act, poison, poison);
  return 1;
}

static void start(Launch *L, Cta *T, int64_t id) {
  T->id = id, T->alive = L->warps;
  int64_t at[3] = {id % L->grid[0], id / L->grid[0] % L->grid[1], id / L->grid[0] / L->grid[1]};
  for (int w = 0; w < L->warps; w++) {
    Warp *W = T->warps + w;
    for (int s = 0; s < L->num_slots; s++) {
      if (L->init_known[s])
        for (int l = 0; l < 32; l++) W->R[(size_t)s * 32 + l] = L->init_values[s];
      W->P[s] = L->init_known[s] ? 0 : ~0u;
      HIGH(W->P)[s] = L->init_known[s] || !L->wide[s] ? 0 : ~0u;
    }
    for (int l = 0; l < 32; l++) {
      W->R[(size_t)L->slot_tid[0] * 32 + l] = w * 32 + l, W->R[(size_t)L->slot_laneid * 32 + l] = l,
                                         W->R[(size_t)L->slot_warpid * 32 + l] = w;
      for (int k = 0; k < 3; k++) W->R[(size_t)L->slot_ctaid[k] * 32 + l] = at[k];
    }
    W->live = ~0u, W->waiting = 0, W->uniform = 1, W->upc = 0, W->barrier = 0, W->bar = 1, W->sync = 1;
  }
  if (L->shared_bytes) {
    memset(T->shared, 0xa5, L->shared_bytes), memset(T->shared_init, 0, L->shared_bytes);
    memset(T->cells, 0, sizeof(Cell) * (L->shared_bytes + 8));
  }
}

int execute(Launch *L) {
  RNG = L->seed * 0x9e3779b97f4a7c15ull + 0x1234567;
  for (int i = 0; i < 8; i++) rnd();
  int64_t total = L->grid[0] * L->grid[1] * L->grid[2], next = 0;
  int64_t *order = malloc(sizeof *order * (total + 1));
  for (int64_t i = 0; i < total; i++) order[i] = L->order == 1 ? total - 1 - i : i;
  if (L->order == 2)
    for (int64_t i = total - 1; i > 0; i--) {
      int64_t j = rnd() % (i + 1), t = order[i];
      order[i] = order[j];
      order[j] = t;
    }
  CELLS = calloc(L->num_segments + 1, sizeof *CELLS);
  for (int i = 0; i < L->num_segments; i++)
    if (L->check_races && L->seg_sizes[i] <= WATCHED)
      CELLS[i] = calloc(L->seg_sizes[i] / 4 + 4, sizeof(Cell));
  int most = L->inflight < total ? L->inflight : (int)total, running = 0;
  Cta *ctas = calloc(most + 1, sizeof *ctas);
  for (int c = 0; c < most; c++) {
    Cta *T = ctas + c;
    T->warps = calloc(L->warps, sizeof(Warp));
    for (int w = 0; w < L->warps; w++)
      T->warps[w].R = malloc(sizeof(uint64_t) * 32 * L->num_slots), T->warps[w].P = malloc(8 * L->num_slots);
    if (L->shared_bytes)
      T->shared = malloc(L->shared_bytes), T->shared_init = malloc(L->shared_bytes),
      T->cells = malloc(sizeof(Cell) * (L->shared_bytes + 8));
    start(L, T, order[next++]);
    running++;
  }
  int failed = 0;
  while (running && !failed) {
    Cta *T = ctas + (running == 1 ? 0 : rnd() % running);
    int w = L->warps == 1 ? 0 : rnd() % L->warps, tries = 0;
    while (tries < L->warps && (!T->warps[w].live || T->warps[w].barrier)) w = (w + 1) % L->warps, tries++;
    Warp *W = T->warps + w;
    if (tries < L->warps) {
      int n = L->quantum <= 1 ? 1 : 1 + rnd() % L->quantum;
      while (n-- > 0 && W->live && !W->barrier) {
        L->steps++;
        step(L, T, w);
      }
    }
    int alive = 0, waits = 0;
    for (int i = 0; i < L->warps; i++)
      alive += T->warps[i].live != 0, waits += T->warps[i].live && T->warps[i].barrier;
    if (alive && alive == waits)
      for (int i = 0; i < L->warps; i++) T->warps[i].barrier = 0, T->warps[i].bar++, T->warps[i].sync++;
    if (!alive) {
      if (next < total)
        start(L, T, order[next++]);
      else {
        running--;
        Cta t = *T;
        *T = ctas[running];
        ctas[running] = t;
      }
    }
    if (L->steps > L->max_steps) {
      report(L, STEPS, T->warps[0].upc, 0, 0)->cta_a = (int)T->id;
      failed = 1;
    }
  }
  for (int c = 0; c < most; c++) {
    for (int w = 0; w < L->warps; w++) free(ctas[c].warps[w].R), free(ctas[c].warps[w].P);
    free(ctas[c].warps);
    free(ctas[c].shared);
    free(ctas[c].shared_init);
    free(ctas[c].cells);
  }
  for (int i = 0; i < L->num_segments; i++) free(CELLS[i]);
  free(CELLS);
  free(ctas);
  free(order);
  return failed;
}
