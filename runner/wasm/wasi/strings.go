package wasi

func (s *System) argsGet(m memory, p []uint64) errno { return putStrings(m, s.config.Args, p[0], p[1]) }

func (s *System) argsSizesGet(m memory, p []uint64) errno {
	return putSizes(m, s.config.Args, p[0], p[1])
}

func (s *System) environGet(m memory, p []uint64) errno {
	return putStrings(m, s.config.Env, p[0], p[1])
}

func (s *System) environSizesGet(m memory, p []uint64) errno {
	return putSizes(m, s.config.Env, p[0], p[1])
}

// putStrings writes each string with a NUL at its end, one after the other, and a list of pointers to them.
func putStrings(m memory, list []string, pointers, at uint64) errno {
	for i, text := range list {
		if e := m.put32(pointers+4*uint64(i), uint32(at)); e != success {
			return e
		}
		b, e := m.at(at, uint64(len(text))+1)
		if e != success {
			return e
		}
		b[copy(b, text)] = 0
		at += uint64(len(b))
	}
	return success
}

func putSizes(m memory, list []string, count, size uint64) errno {
	total := 0
	for _, text := range list {
		total += len(text) + 1
	}
	if e := m.put32(count, uint32(len(list))); e != success {
		return e
	}
	return m.put32(size, uint32(total))
}
