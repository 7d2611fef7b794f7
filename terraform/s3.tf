# The one bucket: raw and processed data, models, reports, explanations, dead letters.

resource "aws_s3_bucket" "data" {
  # checkov:skip=CKV_AWS_144: one region is what this platform runs in; versions guard against mistakes, and a copy in a second region doubles the bill
  # checkov:skip=CKV_AWS_18: the journal and the ledger hold who did what; access logs need a second bucket, and an account that wants them has CloudTrail's data events
  bucket        = "${var.bucket_name}${var.bucket_suffix}"
  force_destroy = var.force_destroy
}

resource "aws_s3_bucket_versioning" "data" {
  bucket = aws_s3_bucket.data.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "data" {
  bucket = aws_s3_bucket.data.id

  rule {
    # One key for many objects: a request to KMS for each would cost more than the objects.
    bucket_key_enabled = true

    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = aws_kms_key.main.arn
    }
  }
}

resource "aws_s3_bucket_public_access_block" "data" {
  bucket                  = aws_s3_bucket.data.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "data" {
  bucket = aws_s3_bucket.data.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

data "aws_iam_policy_document" "tls_only" {
  statement {
    sid       = "TlsOnly"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [aws_s3_bucket.data.arn, "${aws_s3_bucket.data.arn}/*"]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

resource "aws_s3_bucket_policy" "data" {
  bucket = aws_s3_bucket.data.id
  policy = data.aws_iam_policy_document.tls_only.json

  # Two changes of one bucket's access at a time can meet a conflict.
  depends_on = [aws_s3_bucket_public_access_block.data]
}

resource "aws_s3_bucket_lifecycle_configuration" "data" {
  bucket = aws_s3_bucket.data.id

  rule {
    id     = "parts-that-nobody-completes"
    status = "Enabled"

    filter {}

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }

  # What is overwritten or deleted can be had back for three months.
  rule {
    id     = "earlier-versions"
    status = "Enabled"

    filter {}

    noncurrent_version_expiration {
      noncurrent_days = 90
    }
  }

  depends_on = [aws_s3_bucket_versioning.data]
}

# A dead letter is an object; a note of it in a queue is what an alarm can stand on.
resource "aws_s3_bucket_notification" "dead_letters" {
  bucket = aws_s3_bucket.data.id

  dynamic "queue" {
    for_each = { poison = "monitoring/dead_letters/", undecided = "aws/lambda/" }

    content {
      id            = queue.key
      queue_arn     = aws_sqs_queue.stream_dead.arn
      events        = ["s3:ObjectCreated:*"]
      filter_prefix = queue.value
    }
  }
}
