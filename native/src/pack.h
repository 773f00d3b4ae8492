/* Weights in the order in which kernels read them. */
#ifndef REID_NATIVE_PACK_H
#define REID_NATIVE_PACK_H

#include "network.h"

/* Fill in a network's layers from a plan; the network's `k` and geometry are set. */
int pack_network(network *n, const plan *p);

#endif
