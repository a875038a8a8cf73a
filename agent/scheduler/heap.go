package scheduler

import "container/heap"

// ordered is a heap of pointers that knows where each of its elements is.
type ordered[T any] struct {
	list  []*T
	less  func(a, b *T) bool
	index func(*T) *int // where an element keeps its place; -1: it is in no heap
}

// Len implements heap.Interface.
func (h *ordered[T]) Len() int { return len(h.list) }

// Less implements heap.Interface.
func (h *ordered[T]) Less(i, j int) bool { return h.less(h.list[i], h.list[j]) }

// Swap implements heap.Interface.
func (h *ordered[T]) Swap(i, j int) {
	h.list[i], h.list[j] = h.list[j], h.list[i]
	*h.index(h.list[i]), *h.index(h.list[j]) = i, j
}

// Push implements heap.Interface.
func (h *ordered[T]) Push(x any) {
	*h.index(x.(*T)) = len(h.list)
	h.list = append(h.list, x.(*T))
}

// Pop implements heap.Interface.
func (h *ordered[T]) Pop() any {
	last := h.list[len(h.list)-1]
	h.list[len(h.list)-1] = nil
	h.list = h.list[:len(h.list)-1]
	*h.index(last) = -1
	return last
}

func (h *ordered[T]) first() *T {
	if len(h.list) == 0 {
		return nil
	}
	return h.list[0]
}

// place puts x where it belongs now, whether it is in the heap or not.
func (h *ordered[T]) place(x *T) {
	if i := *h.index(x); i >= 0 {
		heap.Fix(h, i)
		return
	}
	heap.Push(h, x)
}

func (h *ordered[T]) remove(x *T) {
	if i := *h.index(x); i >= 0 {
		heap.Remove(h, i)
	}
}
