package wasi

import "encoding/binary"

// fileType is WASI's filetype.
type fileType uint8

const (
	typeUnknown   fileType = 0
	typeDirectory fileType = 3
	typeRegular   fileType = 4
	typeLink      fileType = 7
)

// rights is a set of WASI's rights.
type rights uint64

const (
	rightDatasync rights = 1 << iota
	rightRead
	rightSeek
	rightSetFlags
	rightSync
	rightTell
	rightWrite
	rightAdvise
	rightAllocate
	rightCreateDirectory
	rightCreateFile
	rightLinkSource
	rightLinkTarget
	rightOpen
	rightReadDir
	rightReadLink
	rightRenameSource
	rightRenameTarget
	rightPathStat
	rightPathSetSize
	rightPathSetTimes
	rightStat
	rightSetSize
	rightSetTimes
	rightSymlink
	rightRemoveDirectory
	rightUnlink
	rightPoll
	rightShutdown
	rightAccept
)

const (
	readFileRights  = rightRead | rightSeek | rightSetFlags | rightTell | rightAdvise | rightStat | rightPoll
	writeFileRights = rightDatasync | rightSync | rightWrite | rightSeek | rightSetFlags | rightTell | rightAdvise | rightAllocate |
		rightStat | rightSetSize | rightSetTimes | rightPoll
	readDirRights  = rightOpen | rightReadDir | rightReadLink | rightPathStat | rightStat | rightSync | rightDatasync | rightSetFlags
	writeDirRights = rightCreateDirectory | rightCreateFile | rightLinkSource | rightLinkTarget | rightRenameSource |
		rightRenameTarget | rightPathSetSize | rightPathSetTimes | rightSetTimes | rightSymlink | rightRemoveDirectory | rightUnlink
	stdinRights  = rightRead | rightStat | rightPoll | rightSetFlags
	stdoutRights = rightWrite | rightStat | rightPoll | rightSetFlags | rightSync | rightDatasync
)

// Bits of the calls' flags.
const (
	openCreate    = 1 << 0
	openDirectory = 1 << 1
	openExclusive = 1 << 2
	openTruncate  = 1 << 3
	openFlagsAll  = 1<<4 - 1

	flagAppend = 1 << 0
	flagsAll   = 1<<5 - 1

	lookupFollow = 1

	setAccess    = 1 << 0
	setAccessNow = 1 << 1
	setModify    = 1 << 2
	setModifyNow = 1 << 3
	setTimesAll  = 1<<4 - 1
)

const (
	clockRealtime  = 0
	clockMonotonic = 1
)

// Sizes of structures in a module's memory.
const (
	sizeIOVec        = 8
	sizeFDStat       = 24
	sizeFileStat     = 64
	sizePrestat      = 8
	sizeDirent       = 24
	sizeSubscription = 48
	sizeEvent        = 32
)

// stat is what a tree or a file says of a node. Times are nanoseconds since 1970.
type stat struct {
	device, inode, links, size uint64
	accessed, modified, status int64
	kind                       fileType
}

// put writes s as a filestat.
func (s stat) put(b []byte) {
	clear(b[:sizeFileStat])
	le := binary.LittleEndian
	le.PutUint64(b[0:], s.device)
	le.PutUint64(b[8:], s.inode)
	b[16] = byte(s.kind)
	le.PutUint64(b[24:], s.links)
	le.PutUint64(b[32:], s.size)
	le.PutUint64(b[40:], uint64(s.accessed))
	le.PutUint64(b[48:], uint64(s.modified))
	le.PutUint64(b[56:], uint64(s.status))
}
