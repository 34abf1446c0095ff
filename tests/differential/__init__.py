"""raftkv's store beside a real etcd 3.5.1: the same requests, the same answers, to the letter of the errors."""
