"""The messages of raftkv/etcdpb/election.proto, made by `make etcd-stubs`: do not edit."""

from raftkv.etcdpb import kv_pb2  # noqa: F401  (registers what this file imports)
from raftkv.etcdpb import rpc_pb2  # noqa: F401  (registers what this file imports)
from raftkv.etcdpb import pool

DESCRIPTOR = pool.add(b'\n\x1craftkv/etcdpb/election.proto\x12\x0cv3electionpb\x1a\x17raftkv/etcdpb/rpc.proto\x1a\x16raftkv/etcdpb/kv.proto"Q\n\x0fCampaignRequest\x12\x12\n\x04name\x18\x01 \x01(\x0cR\x04name\x12\x14\n\x05lease\x18\x02 \x01(\x03R\x05lease\x12\x14\n\x05value\x18\x03 \x01(\x0cR\x05value"y\n\x10CampaignResponse\x124\n\x06header\x18\x01 \x01(\x0b2\x1c.etcdserverpb.ResponseHeaderR\x06header\x12/\n\x06leader\x18\x02 \x01(\x0b2\x17.v3electionpb.LeaderKeyR\x06leader"Y\n\tLeaderKey\x12\x12\n\x04name\x18\x01 \x01(\x0cR\x04name\x12\x10\n\x03key\x18\x02 \x01(\x0cR\x03key\x12\x10\n\x03rev\x18\x03 \x01(\x03R\x03rev\x12\x14\n\x05lease\x18\x04 \x01(\x03R\x05lease"#\n\rLeaderRequest\x12\x12\n\x04name\x18\x01 \x01(\x0cR\x04name"h\n\x0eLeaderResponse\x124\n\x06header\x18\x01 \x01(\x0b2\x1c.etcdserverpb.ResponseHeaderR\x06header\x12 \n\x02kv\x18\x02 \x01(\x0b2\x10.mvccpb.KeyValueR\x02kv"X\n\x0fProclaimRequest\x12/\n\x06leader\x18\x01 \x01(\x0b2\x17.v3electionpb.LeaderKeyR\x06leader\x12\x14\n\x05value\x18\x02 \x01(\x0cR\x05value"H\n\x10ProclaimResponse\x124\n\x06header\x18\x01 \x01(\x0b2\x1c.etcdserverpb.ResponseHeaderR\x06header"@\n\rResignRequest\x12/\n\x06leader\x18\x01 \x01(\x0b2\x17.v3electionpb.LeaderKeyR\x06leader"F\n\x0eResignResponse\x124\n\x06header\x18\x01 \x01(\x0b2\x1c.etcdserverpb.ResponseHeaderR\x06header2\xf2\x02\n\x08Election\x12I\n\x08Campaign\x12\x1d.v3electionpb.CampaignRequest\x1a\x1e.v3electionpb.CampaignResponse\x12I\n\x08Proclaim\x12\x1d.v3electionpb.ProclaimRequest\x1a\x1e.v3electionpb.ProclaimResponse\x12C\n\x06Leader\x12\x1b.v3electionpb.LeaderRequest\x1a\x1c.v3electionpb.LeaderResponse\x12F\n\x07Observe\x12\x1b.v3electionpb.LeaderRequest\x1a\x1c.v3electionpb.LeaderResponse0\x01\x12C\n\x06Resign\x12\x1b.v3electionpb.ResignRequest\x1a\x1c.v3electionpb.ResignResponseb\x06proto3')

CampaignRequest = pool.message("v3electionpb.CampaignRequest")
CampaignResponse = pool.message("v3electionpb.CampaignResponse")
LeaderKey = pool.message("v3electionpb.LeaderKey")
LeaderRequest = pool.message("v3electionpb.LeaderRequest")
LeaderResponse = pool.message("v3electionpb.LeaderResponse")
ProclaimRequest = pool.message("v3electionpb.ProclaimRequest")
ProclaimResponse = pool.message("v3electionpb.ProclaimResponse")
ResignRequest = pool.message("v3electionpb.ResignRequest")
ResignResponse = pool.message("v3electionpb.ResignResponse")
