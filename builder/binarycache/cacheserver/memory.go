package cacheserver

import "sync"

// maxKnown bounds how many objects are remembered: 65,536 with some references each are about 50 MiB.
const maxKnown = 1 << 16

// memory keeps what was found out of paths, whose content never changes. When it is full it begins anew.
type memory struct {
	mu      sync.Mutex // guards objects
	objects map[string]Object
}

func newMemory() *memory { return &memory{objects: map[string]Object{}} }

func (m *memory) get(hash string) (Object, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	o, ok := m.objects[hash]
	return o, ok
}

func (m *memory) put(hash string, o Object) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.objects) >= maxKnown {
		clear(m.objects)
	}
	m.objects[hash] = o
}

func (m *memory) forget(hash string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.objects, hash)
}
