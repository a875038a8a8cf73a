package binary

// Limits bound what a module may claim. Zero fields mean DefaultLimits'.
type Limits struct {
	Module     int // bytes of the whole module
	Types      int // function types
	Arity      int // parameters, and results, of one function type
	Imports    int
	Functions  int // imported and own
	Tables     int
	Elements   int // initial elements of all tables together
	Pages      int // initial pages of the memory, of 64 KiB
	Globals    int
	Exports    int
	Segments   int // element segments, and data segments
	Entries    int // entries of all element segments together
	Customs    int // custom sections
	Name       int // bytes of one name
	Locals     int // of one function, without parameters
	AllLocals  int // of all functions together
	Body       int // bytes of one function's body
	Nesting    int // blocks inside of each other
	BlockArity int // parameters, and results, of one block
	Control    int // instructions of one function that begin a block or branch
	// ControlSquares bounds the sum of the squares of the latter over all functions: an optimising compiler's work.
	ControlSquares int
	Targets        int // of one br_table
	AllTargets     int // of all br_tables together
	// Moves bounds the values that block types, branches and calls carry, all instructions of the module together: a
	// compiler's work is in proportion to them, not to the bytes.
	Moves int
}

// DefaultLimits are above what compilers make and below what harms an engine: the first thirteen of the numbers are near those that
// browsers agreed on (WebAssembly JavaScript Interface, "Implementation-defined Limits"), the rest are from measurements: wazero 1.12 takes
// 41 s for a function of 50,000 br_if, 11 s for 900 nested blocks of 1,000 parameters, and 5 KB a load; no function of the Go compiler,
// clang or wasm-opt that was looked at has more than 1,700 branches or 51 KB, and no module of 5 MB squares of more than 32 million.
func DefaultLimits() Limits {
	return Limits{
		Module:     64 << 20,
		Types:      50_000,
		Arity:      1_000,
		Imports:    10_000,
		Functions:  50_000,
		Tables:     100,
		Elements:   10_000_000,
		Pages:      1 << 16,
		Globals:    50_000,
		Exports:    50_000,
		Segments:   100_000,
		Entries:    10_000_000,
		Customs:    1_000,
		Name:       1 << 16,
		Locals:     50_000,
		AllLocals:  2_000_000,
		Body:       2 << 20,
		Nesting:    1_000,
		BlockArity: 100,
		Control:    20_000,
		Targets:    65_520,
		AllTargets: 1_000_000,

		ControlSquares: 2_000_000_000,

		Moves: 32_000_000,
	}
}

// complete returns l with the defaults where it is zero.
func (l Limits) complete() Limits {
	d := DefaultLimits()
	for _, f := range []struct{ have, def *int }{
		{&l.Module, &d.Module},
		{&l.Types, &d.Types},
		{&l.Arity, &d.Arity},
		{&l.Imports, &d.Imports},
		{&l.Functions, &d.Functions},
		{&l.Tables, &d.Tables},
		{&l.Elements, &d.Elements},
		{&l.Pages, &d.Pages},
		{&l.Globals, &d.Globals},
		{&l.Exports, &d.Exports},
		{&l.Segments, &d.Segments},
		{&l.Entries, &d.Entries},
		{&l.Customs, &d.Customs},
		{&l.Name, &d.Name},
		{&l.Locals, &d.Locals},
		{&l.AllLocals, &d.AllLocals},
		{&l.Body, &d.Body},
		{&l.Nesting, &d.Nesting},
		{&l.BlockArity, &d.BlockArity},
		{&l.Control, &d.Control},
		{&l.ControlSquares, &d.ControlSquares},
		{&l.Targets, &d.Targets},
		{&l.AllTargets, &d.AllTargets},
		{&l.Moves, &d.Moves},
	} {
		if *f.have == 0 {
			*f.have = *f.def
		}
	}
	return l
}
